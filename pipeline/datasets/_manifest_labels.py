"""The label columns of a manifest: what a header means, and what a cell holds (the rules stand in `manifest.py`)."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.spec import IGNORE, LAYOUTS, Column
from pipeline.datasets.base import BadExample
from pipeline.datasets.files import find, read_field, read_ids, read_rgb, require_same_size

NOT_LABELS = ("image", "split", "group")
WIDTHS = {"points": 3, "boxes": 5}
FLAGS = {"": -1, "0": 0, "1": 1, "0.0": 0, "1.0": 1}
Table = Sequence[Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class Label:
    """One label column and the headers that it is read from (several for flags)."""

    name: str
    column: Column
    headers: tuple[str, ...]


def parse_labels(table: Table, folder: Path) -> tuple[Label, ...]:
    """A manifest's rows -> its label columns in the header's order. Raises ValueError naming the header."""
    labels: dict[str, Label] = {}
    for header in table[0]:
        if header in NOT_LABELS:
            continue
        label = _parse_label(header, [row[header] for row in table if row[header]], folder)
        labels[label.name] = _joined(labels[label.name], label) if label.name in labels else label
    return tuple(labels.values())


def read_label(label: Label, cells: Mapping[str, str], folder: Path, image: np.ndarray) -> Any:
    """One row's cells -> the label as `Example` holds it, None where every cell is empty. Raises BadExample."""
    found = [cells[header] for header in label.headers]
    if not any(found):
        return None
    if label.column.layout == "flags":
        return [_flag(header, cell) for header, cell in zip(label.headers, found, strict=True)]
    return READERS[label.column.layout](label, found[0], folder, image)


def _parse_label(header: str, values: Sequence[str], folder: Path) -> Label:
    name, _, rest = header.partition(":")
    layout, _, option = rest.partition(":")
    if not rest and any(value.lower().endswith(".png") for value in values):
        raise ValueError(f"column {name!r} holds paths of .png files: name its layout, as in '{name}:mask'")
    layout = layout or "class"
    if layout not in LAYOUTS:
        raise ValueError(f"column {header!r}: layout {layout!r}: use one of {', '.join(LAYOUTS)}")
    if option and layout in ("flags", "instances", "normals"):
        raise ValueError(f"column {header!r}: {layout} takes no option, so leave out {option!r}")
    scale, unit, classes = 1.0, "", ()
    if layout == "field":
        scale, unit = _scale(header, option), "m"
    elif layout == "flags":
        name, _, flag = name.partition(".")
        classes = (flag,)
    elif layout not in ("instances", "normals"):
        classes = tuple(option.split("|")) if option else CLASSES[layout](header, values, folder)
    if name in ("id", "image"):
        raise ValueError(f"column {header!r}: no label can be named {name!r}; rename it or leave it out")
    if not name or classes == ("",):
        raise ValueError(f"column {header!r}: write name:layout, and name.flag:flags for flags")
    column = Column(layout=layout, classes=classes, scale=scale, unit=unit)
    return Label(name=name, column=column, headers=(header,))


def _joined(first: Label, second: Label) -> Label:
    if first.column.layout != "flags" or second.column.layout != "flags":
        raise ValueError(f"columns {first.headers[0]!r} and {second.headers[0]!r} have one name")
    column = Column(layout="flags", classes=first.column.classes + second.column.classes)
    return Label(name=first.name, column=column, headers=first.headers + second.headers)


def _scale(header: str, option: str) -> float:
    try:
        scale = float(option or 1)
    except ValueError:
        scale = math.nan
    if not 0 < scale < math.inf:
        raise ValueError(f"column {header!r}: the scale {option!r} must be a number above 0, as in 'depth:field:0.001'")
    return scale


def _classes_of_values(_header: str, values: Sequence[str], _folder: Path) -> tuple[str, ...]:
    return tuple(sorted(set(values)))


def _classes_of_masks(header: str, values: Sequence[str], folder: Path) -> tuple[str, ...]:
    largest = -1
    for value in values:
        try:
            mask = read_ids(find("mask", value, folder))
        except BadExample:
            continue  # a row's own error, for load to report
        largest = max(largest, int(mask[mask != IGNORE].max(initial=0)))
    if largest < 0:
        raise ValueError(
            f"column {header!r}: no mask can be read to count its classes; name them: '{header}:wall|floor'"
        )
    return tuple(str(index) for index in range(largest + 1))


def _classes_of_places(header: str, values: Sequence[str], _folder: Path) -> tuple[str, ...]:
    largest = 0
    for value in values:
        try:
            places = _places(header, value)
        except BadExample:
            continue  # a row's own error, for load to report
        largest = max(largest, int(places[:, -1].max(initial=0)))
    return tuple(str(index) for index in range(largest + 1))


def _places(header: str, cell: str) -> np.ndarray:
    layout = header.split(":")[1]
    width = WIDTHS[layout]
    try:
        places = np.array(json.loads(cell), dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise BadExample(f"{header}: {cell!r} is no JSON list of {layout}: {error}") from error
    if places.size and (places.ndim != 2 or places.shape[1] != width):
        raise BadExample(f"{header}: {cell!r}: {layout} must be a list of lists of {width} numbers")
    if not np.isfinite(places).all():
        raise BadExample(f"{header}: {cell!r}: a number is not finite")
    return places.reshape(-1, width)


def _flag(header: str, cell: str) -> int:
    if cell not in FLAGS:
        raise BadExample(f"{header}: {cell!r} must be 0, 1 or empty")
    return FLAGS[cell]


def _read_class(label: Label, cell: str, _folder: Path, _image: np.ndarray) -> str:
    if cell not in label.column.classes:
        raise BadExample(f"{label.headers[0]}: {cell!r} is none of {', '.join(label.column.classes)}")
    return cell


def _read_mask(label: Label, cell: str, folder: Path, image: np.ndarray) -> np.ndarray:
    mask, number = _read_instances(label, cell, folder, image), len(label.column.classes)
    wrong = mask[(mask >= number) & (mask != IGNORE)]
    if wrong.size:
        raise BadExample(
            f"{folder / cell}: {wrong.size} pixels are out of range, with values up to {wrong.max()}: {label.name} has "
            f"{number} classes, 0 to {number - 1}, and {IGNORE} for unlabelled"
        )
    return mask


def _read_instances(label: Label, cell: str, folder: Path, image: np.ndarray) -> np.ndarray:
    path = find(label.name, cell, folder)
    ids = read_ids(path)
    require_same_size(path, ids, image)
    return ids


def _read_field(label: Label, cell: str, folder: Path, image: np.ndarray) -> np.ndarray:
    path = find(label.name, cell, folder)
    field = read_field(path)
    require_same_size(path, field, image)
    return field * np.float32(label.column.scale)


def _read_normals(label: Label, cell: str, folder: Path, image: np.ndarray) -> np.ndarray:
    path = find(label.name, cell, folder)
    stored = read_rgb(path)
    require_same_size(path, stored[..., 0], image)
    normals = (stored.astype(np.float32) - 128) * stored.any(2, keepdims=True)
    return normals / np.linalg.norm(normals, axis=2, keepdims=True).clip(min=1)


def _read_places(label: Label, cell: str, _folder: Path, _image: np.ndarray) -> np.ndarray:
    places, number = _places(label.headers[0], cell), len(label.column.classes)
    classes = places[:, -1]
    if not np.isin(classes, np.arange(number)).all():
        raise BadExample(f"{label.headers[0]}: {cell!r}: a class must be a whole number from 0 to {number - 1}")
    return places


CLASSES: dict[str, Callable[[str, Sequence[str], Path], tuple[str, ...]]] = {
    "class": _classes_of_values,
    "mask": _classes_of_masks,
    "points": _classes_of_places,
    "boxes": _classes_of_places,
}
READERS: dict[str, Callable[[Label, str, Path, np.ndarray], Any]] = {
    "class": _read_class,
    "mask": _read_mask,
    "field": _read_field,
    "instances": _read_instances,
    "normals": _read_normals,
    "points": _read_places,
    "boxes": _read_places,
}
