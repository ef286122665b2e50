"""Rows of a data set -> what is seen of each: enough for counts, ranges and copies, and none of its pixels.

Runs in processes of its own, so nothing heavy is imported here.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.spec import Column
from pipeline.datasets import BadExample, Row, Source
from pipeline.encoding import encode, resize

SOME = 64  # values of a field that are kept of each image
BEHIND = -0.1  # a normal with less than this towards the camera points away; a floor has about 0


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One readable row. `sums` [2, 3] are those of the stored image's channels in 0..1, and of their squares.

    `facts` by column, None where unlabelled:
    "class"      the class index
    "flags"      the flags
    "mask"       pixels by value, as the file holds them; "instances" likewise
    "field"      FieldFacts
    "normals"    NormalFacts
    "points"     float32 [P, 3] at the stored size; "boxes" [P, 5]
    """

    digest: str  # of the pixels, the same for two files that show the same
    shape: tuple[int, int]  # height, width
    grey: bool
    blank: bool  # all pixels alike
    sums: np.ndarray
    facts: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class FieldFacts:
    """A field's labelled pixels: how many of how many, their range, and a few of them."""

    labelled: int
    pixels: int
    low: float = np.inf
    high: float = -np.inf
    some: np.ndarray


@dataclass(frozen=True, kw_only=True)
class NormalFacts:
    """A map of normals: how many pixels are labelled, and how many of those point away from the camera."""

    labelled: int
    pixels: int
    away: int


def look(source: Source, columns: Mapping[str, Column], size: tuple[int, int], rows: Sequence[Row]) -> list[Seen | str]:
    """Load rows as `prepare` would; a row that it would refuse becomes a line that names it and says why."""
    return [_look_at(source, columns, size, row) for row in rows]


def _look_at(source: Source, columns: Mapping[str, Column], size: tuple[int, int], row: Row) -> Seen | str:
    try:
        example = source.load(row)
        stored = resize(example, columns, size)
        cells = {name: encode(name, column, stored.labels.get(name)) for name, column in columns.items()}
    except BadExample as error:
        return f"{row.origin}: {error}"
    image, pixels = example.image, stored.image.reshape(-1, 3) / 255
    raw = example.labels
    return Seen(
        digest=hashlib.blake2b(image.tobytes(), key=repr(image.shape).encode(), digest_size=16).hexdigest(),
        shape=(image.shape[0], image.shape[1]),
        grey=bool((image[..., :1] == image[..., 1:]).all()),
        blank=bool((image == image[0, 0]).all()),
        sums=np.stack([pixels.sum(0), np.square(pixels).sum(0)]),
        facts={
            name: None if cells[name] is None else FACTS[column.layout](raw[name], cells[name])
            for name, column in columns.items()
        },
    )


def _cell(_raw: Any, cell: Any) -> Any:
    return cell


def _pixels(raw: Any, _cell: Any) -> dict[int, int]:
    counts = np.bincount(np.asarray(raw, dtype=np.uint8).reshape(-1), minlength=256)
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def _field(raw: Any, _cell: Any) -> FieldFacts:
    values = np.asarray(raw, dtype=np.float32)
    labelled = values[values > 0]
    if not labelled.size:
        return FieldFacts(labelled=0, pixels=values.size, some=labelled)
    return FieldFacts(
        labelled=labelled.size,
        pixels=values.size,
        low=float(labelled.min()),
        high=float(labelled.max()),
        some=labelled[:: -(-labelled.size // SOME)],
    )


def _normals(raw: Any, _cell: Any) -> NormalFacts:
    normals = np.asarray(raw)
    labelled = normals.any(2)
    away = int((normals[..., 2] < BEHIND).sum())
    return NormalFacts(labelled=int(labelled.sum()), pixels=labelled.size, away=away)


def _entries(length: int) -> Callable[[Any, Any], np.ndarray]:
    return lambda _raw, cell: np.asarray(cell, dtype=np.float32).reshape(-1, length)


FACTS: dict[str, Callable[[Any, Any], Any]] = {
    "class": _cell,
    "flags": _cell,
    "mask": _pixels,
    "instances": _pixels,
    "field": _field,
    "normals": _normals,
    "points": _entries(3),
    "boxes": _entries(5),
}
