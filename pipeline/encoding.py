"""Loaded examples -> cells of a shard: everything brought to one size, images and maps compressed.

The cells are what `models.spec.Column` says of each layout; `pipeline.loading` reads them back.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from models.spec import IGNORE, Column
from pipeline.datasets import BadExample, Example

STEPS = 65535  # of a field's scale, the most that a cell's 16 bits hold
UNIT = 0.01  # how far from 1 the length of a normal may be


def resize(example: Example, columns: Mapping[str, Column], size: tuple[int, int]) -> Example:
    """Bring an example to the stored size: images smoothly, maps by the nearest pixel, coordinates by scaling."""
    height, width = example.image.shape[:2]
    if (height, width) == size:
        return example
    wide = (size[1], size[0])
    image = np.asarray(Image.fromarray(example.image).resize(wide, Image.Resampling.BILINEAR))
    labels = dict(example.labels)
    for name, column in columns.items():
        value = labels.get(name)
        if value is None:
            continue
        if column.layout in ("mask", "instances", "field", "normals"):
            rows = (np.arange(size[0]) * 2 + 1) * value.shape[0] // (2 * size[0])
            across = (np.arange(size[1]) * 2 + 1) * value.shape[1] // (2 * size[1])
            labels[name] = value[rows][:, across]
        elif column.layout in ("points", "boxes"):
            pairs = {"points": 1, "boxes": 2}[column.layout]
            factors = np.array([size[1] / width, size[0] / height] * pairs + [1.0], dtype=np.float32)
            try:
                labels[name] = _rows(value, len(factors)) * factors
            except (TypeError, ValueError) as error:
                raise BadExample(f"{name}: {error}") from error
    return Example(image=image, labels=labels)


def encode(name: str, column: Column, value: Any) -> Any:
    """Map a label to its cell; None stays None. BadExample where it is not what the column says."""
    try:
        return None if value is None else LAYOUTS[column.layout].encode(column, value)
    except BadExample as error:
        raise BadExample(f"{name}: {error}") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise BadExample(f"{name}: not a label of layout {column.layout}: {error}") from error


def image_type(store: str, size: tuple[int, int]) -> pa.DataType:
    """Map the way images are stored, "jpeg" or "raw", to the Arrow type of their cells."""
    return pa.binary(3 * size[0] * size[1]) if store == "raw" else pa.binary()


def encode_image(image: np.ndarray, store: str, quality: int) -> bytes:
    """Map an image uint8 [H, W, 3] to its cell: a JPEG, or raw its bytes as [3, H, W], as they stand in a batch."""
    if store == "raw":
        return image.transpose(2, 0, 1).tobytes()
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)  # subsampled, small ones would smear
    return buffer.getvalue()


def _class(column: Column, value: Any) -> int:
    if isinstance(value, str):
        if value not in column.classes:
            raise BadExample(f"{value!r} is none of the {len(column.classes)} classes")
        return column.classes.index(value)
    return _in_range(float(value), column)


def _flags(column: Column, value: Any) -> list[int]:
    if len(value) != len(column.classes):
        raise BadExample(f"{len(value)} flags for {len(column.classes)} classes")
    if wrong := [flag for flag in value if flag not in (-1, 0, 1)]:
        raise BadExample(f"flag {wrong[0]}, but a flag is 0, 1 or -1 (unlabelled)")
    return [int(flag) for flag in value]


def _mask(column: Column, value: Any) -> bytes:
    mask, number = _whole(value), len(column.classes)
    if (wrong := mask[((mask < 0) | (mask >= number)) & (mask != IGNORE)]).size:
        raise BadExample(
            f"label {wrong[0]:g}, but there are {number} classes (0 to {number - 1}), and {IGNORE} is unlabelled"
        )
    return _png(mask.astype(np.uint8))


def _instances(_column: Column, value: Any) -> bytes:
    ids = _whole(value)
    if (wrong := ids[(ids < 0) | (ids > IGNORE)]).size:
        raise BadExample(f"the id {wrong[0]}, but 1 to {IGNORE - 1} are ids, 0 is none and {IGNORE} is unlabelled")
    return _png(ids.astype(np.uint8))


def _field(column: Column, value: Any) -> bytes:
    field = np.asarray(value)
    if not np.isfinite(field).all() or field.min() < 0:
        raise BadExample("a value is below 0 or not finite; write 0 where there is no label")
    if (largest := field.max()) / column.scale > STEPS + 0.5:
        raise BadExample(
            f"the value {largest:g}, but in steps of the column's scale, {column.scale:g}, no more than"
            f" {STEPS * column.scale:g} can be stored; give the column a larger scale"
        )
    # what is labelled stays so: 0 means unlabelled
    return _png(np.where(field > 0, np.round(field / column.scale).clip(1, STEPS), 0).astype(np.uint16))


def _normals(_column: Column, value: Any) -> bytes:
    normals = np.asarray(value, dtype=np.float32)
    if normals.ndim != 3 or normals.shape[2] != 3:
        raise BadExample(f"normals have the shape [height, width, 3], not {list(normals.shape)}")
    length = np.linalg.norm(normals, axis=2)
    if not np.isfinite(length).all():
        raise BadExample("a value is not finite; write 0, 0, 0 where there is no label")
    if (wrong := length[(length != 0) & (abs(length - 1) > UNIT)]).size:
        raise BadExample(f"{wrong.size} normals are no unit vectors, the first has length {wrong[0]:.3g}")
    return _png(np.where(length[..., None] > 0, np.round(128 + 127 * normals).clip(1, 255), 0).astype(np.uint8))


def _whole(value: Any) -> np.ndarray:
    """A map [H, W] of whole numbers of any type -> the same."""
    array = np.asarray(value)
    if array.ndim != 2:
        raise BadExample(f"the shape {list(array.shape)}, but a map has [height, width]")
    if array.dtype.kind == "f" and not (array == np.round(array)).all():  # neither is a number that is none
        raise BadExample("a value is no whole number")
    return array


def _points(column: Column, value: Any) -> list[float]:
    return _entries(column, value, 3)


def _boxes(column: Column, value: Any) -> list[float]:
    boxes = _rows(value, 5)
    if (empty := np.flatnonzero((boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1]))).size:
        x0, y0, x1, y1 = boxes[empty[0], :4].tolist()
        raise BadExample(
            f"box {empty[0] + 1} of {len(boxes)} has no area: x {x0:g} to {x1:g}, y {y0:g} to {y1:g}, in pixels of the"
            " stored size"
        )
    return _entries(column, boxes, 5)


def _entries(column: Column, value: Any, length: int) -> list[float]:
    entries = _rows(value, length)
    if not np.isfinite(entries).all():
        raise BadExample("a coordinate is not finite; leave out what has none")
    for kind in entries[:, -1].tolist():
        _in_range(kind, column)
    return entries.reshape(-1).tolist()


def _rows(value: Any, length: int) -> np.ndarray:
    """A list of points or boxes -> float32 [P, length]."""
    entries = np.asarray(value, dtype=np.float32)
    if entries.size and (entries.ndim != 2 or entries.shape[1] != length):
        raise BadExample(f"the shape {list(entries.shape)}, but {length} numbers each are expected")
    return entries.reshape(-1, length)


def _in_range(value: float, column: Column) -> int:
    count = len(column.classes)
    if not 0 <= value < count or value != int(value):
        raise BadExample(f"label {value:g}, but there are {count} classes (0 to {count - 1})")
    return int(value)


def _png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class Layout:
    """How a column's cells are typed in Arrow, and how a label becomes one."""

    arrow: pa.DataType
    encode: Callable[[Column, Any], Any]


LAYOUTS: dict[str, Layout] = {
    "class": Layout(pa.int32(), _class),
    "flags": Layout(pa.list_(pa.int8()), _flags),
    "mask": Layout(pa.binary(), _mask),
    "field": Layout(pa.binary(), _field),
    "normals": Layout(pa.binary(), _normals),
    "instances": Layout(pa.binary(), _instances),
    "points": Layout(pa.list_(pa.float32()), _points),
    "boxes": Layout(pa.list_(pa.float32()), _boxes),
}
