"""The headers of a manifest: what each label column is (the rules stand in `manifest.py`)."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from models.spec import IGNORE, LAYOUTS, Column
from pipeline.datasets.base import BadExample
from pipeline.datasets.files import find, read_ids

NOT_LABELS = ("image", "split", "group")
WIDTHS = {"points": 3, "boxes": 5}
COLOUR = re.compile(r"(.*)=#([0-9a-fA-F]{6})")
BLACK = 0
MOST_CLASSES = {name: IGNORE if name == "mask" else 1 << 20 for name in LAYOUTS}  # a mask's pixel is one of 0 to 254
MOST_COUNTED = 10_000  # classes of points or boxes that have no names
Table = Mapping[str, Sequence[str]]  # the cells of each header, row by row


@dataclass(frozen=True, kw_only=True)
class Label:
    """One label column and the headers that it is read from (several for flags).

    `colours`: what a mask drawn in colours has as its class index, by 0xrrggbb; empty for a mask of indices.
    """

    name: str
    column: Column
    headers: tuple[str, ...]
    colours: Mapping[int, int] = field(default_factory=dict)


def parse_labels(table: Table, folder: Path) -> tuple[Label, ...]:
    """A manifest's cells -> its label columns in the header's order. Raises ValueError naming the header."""
    labels: dict[str, Label] = {}
    for header, cells in table.items():
        if header in NOT_LABELS:
            continue
        label = _parse_label(header, [cell for cell in cells if cell], folder)
        labels[label.name] = _joined(labels[label.name], label) if label.name in labels else label
    return tuple(labels.values())


def places(header: str, cell: str) -> np.ndarray:
    """A cell of points or boxes -> float32 [P, 3] or [P, 5]. Raises BadExample."""
    layout = header.split(":")[1]
    width = WIDTHS[layout]
    try:
        found = np.array(json.loads(cell), dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise BadExample(f"{header}: {cell!r} is no JSON list of {layout}: {error}") from error
    if found.size and (found.ndim != 2 or found.shape[1] != width):
        raise BadExample(f"{header}: {cell!r}: {layout} must be a list of lists of {width} numbers")
    if not np.isfinite(found).all():
        raise BadExample(f"{header}: {cell!r}: a number is not finite")
    return found.reshape(-1, width)


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
    scale, unit, classes, colours = 1.0, "", (), {}
    if layout == "field":
        scale, unit = _scale(header, option)
    elif layout == "flags":
        name, _, flag = name.partition(".")
        classes = (flag,)
    elif layout == "mask" and "=#" in option:
        classes, colours = _colours(header, option)
    elif layout not in ("instances", "normals"):
        classes = tuple(map(str.strip, option.split("|"))) if option else CLASSES[layout](header, values, folder)
    if name.lower() in NOT_LABELS:
        raise ValueError(f"column {header!r}: write {name.lower()!r}, or give the label another name")
    if name == "id":
        raise ValueError(f"column {header!r}: no label can be named {name!r}; rename it or leave it out")
    if not name or "" in classes:
        raise ValueError(f"column {header!r}: write name:layout, and name.flag:flags for flags; no name may be empty")
    if len(classes) > MOST_CLASSES[layout]:
        raise ValueError(
            f"column {header!r}: {len(classes):,} classes, but {layout} has {MOST_CLASSES[layout]:,} at most"
        )
    if twice := [each for each in classes if classes.count(each) > 1]:
        raise ValueError(f"column {header!r}: two classes are named {twice[0]!r}")
    column = Column(layout=layout, classes=classes, scale=scale, unit=unit)
    return Label(name=name, column=column, headers=(header,), colours=colours)


def _joined(first: Label, second: Label) -> Label:
    if first.column.layout != "flags" or second.column.layout != "flags":
        raise ValueError(f"columns {first.headers[0]!r} and {second.headers[0]!r} have one name")
    column = Column(layout="flags", classes=first.column.classes + second.column.classes)
    return Label(name=first.name, column=column, headers=first.headers + second.headers)


def _scale(header: str, option: str) -> tuple[float, str]:
    number, mark, unit = option.partition("|")
    try:
        scale = float(number or 1)
    except ValueError:
        scale = math.nan
    if not 0 < scale < math.inf:
        raise ValueError(f"column {header!r}: the scale {number!r} must be a number above 0, as in 'depth:field:0.001'")
    return scale, unit if mark else "m"


def _colours(header: str, option: str) -> tuple[tuple[str, ...], dict[int, int]]:
    """`road=#804080|sky=#4682b4` -> the classes, and each colour's index; black is unlabelled unless it is named."""
    named: list[tuple[str, int]] = []
    for entry in option.split("|"):
        found = COLOUR.fullmatch(entry)
        if found is None:
            raise ValueError(f"column {header!r}: {entry!r}: write every class with its colour, as in 'road=#804080'")
        named.append((found[1].strip(), int(found[2], 16)))
    classes = tuple(dict.fromkeys(name for name, _ in named if name))
    if not classes:
        raise ValueError(f"column {header!r}: no colour has a name, so all is unlabelled")
    colours = {BLACK: IGNORE}
    for place, (name, colour) in enumerate(named):
        if colour in [earlier for _, earlier in named[:place]]:
            raise ValueError(f"column {header!r}: the colour #{colour:06x} stands there twice")
        colours[colour] = classes.index(name) if name else IGNORE
    return classes, colours


def _classes_of_values(_header: str, values: Sequence[str], _folder: Path) -> tuple[str, ...]:
    return tuple(sorted(set(values)))


def _classes_of_masks(header: str, values: Sequence[str], folder: Path) -> tuple[str, ...]:
    largest, wrong = -1, "there is none"
    for value in values:
        try:
            mask = read_ids(find("mask", value, folder))
        except BadExample as error:
            wrong = str(error)
            continue  # a row's own error, for load to report
        largest = max(largest, int(mask[mask != IGNORE].max(initial=0)))
    if largest < 0:
        raise ValueError(
            f"column {header!r}: no mask can be read to count its classes; name them: '{header}:wall|floor'. The last:"
            f" {wrong}"
        )
    return tuple(str(index) for index in range(largest + 1))


def _classes_of_places(header: str, values: Sequence[str], _folder: Path) -> tuple[str, ...]:
    largest = 0
    for value in values:
        try:
            found = places(header, value)
        except BadExample:
            continue  # a row's own error, for load to report
        largest = max(largest, int(found[:, -1].max(initial=0)))
        if largest >= MOST_COUNTED:
            raise ValueError(
                f"column {header!r}: {value[:80]!r} has class {largest:,}; classes are counted from 0, and stand last."
                f" Of more than {MOST_COUNTED:,} give the names: '{header}:cat|dog'"
            )
    return tuple(str(index) for index in range(largest + 1))


CLASSES: dict[str, Callable[[str, Sequence[str], Path], tuple[str, ...]]] = {
    "class": _classes_of_values,
    "mask": _classes_of_masks,
    "points": _classes_of_places,
    "boxes": _classes_of_places,
}
