"""The cells of a manifest: what each label column's cell holds (the rules stand in `manifest.py`)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.spec import IGNORE
from pipeline.datasets._manifest_headers import Label, places
from pipeline.datasets.base import BadExample
from pipeline.datasets.files import find, read_colours, read_field, read_ids, read_normals, require_same_size

FLAGS = {"": -1, "0": 0, "1": 1, "0.0": 0, "1.0": 1}


def read_label(label: Label, cells: Sequence[str], folder: Path, image: np.ndarray) -> Any:
    """One row's cells of the label's headers -> the label as `Example` holds it, None where all are empty.

    Raises BadExample.
    """
    if not any(cells):
        return None
    if label.column.layout == "flags":
        return [_flag(header, cell) for header, cell in zip(label.headers, cells, strict=True)]
    return READERS[label.column.layout](label, cells[0], folder, image)


def _flag(header: str, cell: str) -> int:
    if cell not in FLAGS:
        raise BadExample(f"{header}: {cell!r} must be 0, 1 or empty")
    return FLAGS[cell]


def _read_class(label: Label, cell: str, _folder: Path, _image: np.ndarray) -> str:
    if cell not in label.column.classes:
        raise BadExample(f"{label.headers[0]}: {cell!r} is none of {', '.join(label.column.classes)}")
    return cell


def _read_mask(label: Label, cell: str, folder: Path, image: np.ndarray) -> np.ndarray:
    if label.colours:
        return _read_coloured(label, cell, folder, image)
    mask, number = _read_instances(label, cell, folder, image), len(label.column.classes)
    wrong = mask[(mask >= number) & (mask != IGNORE)]
    if wrong.size:
        raise BadExample(
            f"{folder / cell}: {wrong.size} pixels are out of range, with values up to {wrong.max()}: {label.name} has "
            f"{number} classes, 0 to {number - 1}, and {IGNORE} for unlabelled; where {wrong.max()} means no label,"
            f" store {IGNORE}, else name more classes in the header"
        )
    return mask


def _read_coloured(label: Label, cell: str, folder: Path, image: np.ndarray) -> np.ndarray:
    path = find(label.name, cell, folder)
    drawn = read_colours(path).astype(np.int32)
    require_same_size(path, drawn, image)
    codes = drawn[..., 0] << 16 | drawn[..., 1] << 8 | drawn[..., 2]
    index_after = np.zeros(1 << 24, dtype=np.uint16)  # 0 for a colour without a name; untouched pages cost nothing
    for colour, index in label.colours.items():
        index_after[colour] = index + 1
    found = index_after[codes]
    if (strange := codes[found == 0]).size:
        colours, counts = np.unique(strange, return_counts=True)
        most = f"#{colours[counts.argmax()]:06x}"
        raise BadExample(
            f"{path}: {counts.max()} pixels are {most}, which {label.name} doesn't name, nor {len(colours) - 1} more "
            f"colours; name its class in the header, or '={most}' for unlabelled"
        )
    return (found - 1).astype(np.uint8)


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
    normals = read_normals(path)
    require_same_size(path, normals, image)
    return normals


def _read_places(label: Label, cell: str) -> np.ndarray:
    found, number = places(label.headers[0], cell), len(label.column.classes)
    if not np.isin(found[:, -1], np.arange(number)).all():
        raise BadExample(f"{label.headers[0]}: {cell!r}: a class must be a whole number from 0 to {number - 1}")
    return found


def _read_points(label: Label, cell: str, _folder: Path, image: np.ndarray) -> np.ndarray:
    found, (height, width) = _read_places(label, cell), image.shape[:2]
    outside = found[(found[:, :2] < 0).any(1) | (found[:, 0] > width) | (found[:, 1] > height)]
    if len(outside):
        raise BadExample(f"{label.headers[0]}: the point {_said(outside[0])} is outside its image of {width}x{height}")
    return found


def _read_boxes(label: Label, cell: str, _folder: Path, image: np.ndarray) -> np.ndarray:
    found, (height, width) = _read_places(label, cell), image.shape[:2]
    if len(flat := found[(found[:, :2] >= found[:, 2:4]).any(1)]):
        raise BadExample(f"{label.headers[0]}: the box {_said(flat[0])} has no area; write x0 < x1 and y0 < y1")
    cut = found.clip(0, [width, height, width, height, np.inf])
    if len(outside := found[(cut[:, :2] >= cut[:, 2:4]).any(1)]):
        raise BadExample(f"{label.headers[0]}: the box {_said(outside[0])} is outside its image of {width}x{height}")
    return cut.astype(np.float32)


def _said(place: np.ndarray) -> str:
    return f"[{', '.join(f'{number:g}' for number in place)}]"


READERS: dict[str, Callable[[Label, str, Path, np.ndarray], Any]] = {
    "class": _read_class,
    "mask": _read_mask,
    "field": _read_field,
    "instances": _read_instances,
    "normals": _read_normals,
    "points": _read_points,
    "boxes": _read_boxes,
}
