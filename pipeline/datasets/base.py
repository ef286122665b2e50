"""What a public data set's reader gives: typed columns, an index of rows, and one row's example on demand.

Rows are cheap and listed at once; examples are loaded one by one, in parallel processes, so a source must be picklable.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from models.spec import Column

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """What a reader is told: where the set lies, how many images to take or make, the seed, the stored image size."""

    root: Path | None
    images: int | None
    seed: int
    size: tuple[int, int]  # height, width


@dataclass(frozen=True, kw_only=True)
class Row:
    """One example, not yet loaded. `split` is the set's official one, or None where prepare must draw it.

    `group` decides a drawn split: rows of one group fall on one side (copies of one image, views of one object).
    `label` is its class where the index says it already, for the reader's own `load`: a million rows then need no table
    beside them in every process.
    """

    id: str
    origin: str  # what a message names: "styles.csv row 17: images/17.jpg"
    group: str
    split: str | None = None
    label: int | None = None


@dataclass(frozen=True, kw_only=True)
class Example:
    """One loaded example: image uint8 [H, W, 3]; labels by column, None where unlabelled.

    "class": int or class name; "flags": sequence of 0/1/-1; "mask", "instances": uint8 [H, W]; "field": float [H, W]
    in the column's unit, 0 = unlabelled; "normals": float [H, W, 3], 0 = unlabelled; "points": float [P, 3];
    "boxes": float [P, 5] (see `models.spec.Column`).
    """

    image: np.ndarray
    labels: Mapping[str, Any]


class BadExample(ValueError):
    """An image or label that can't be read; the message says which file and why."""


class Source(ABC):
    """One data set in its native layout.

    `marks` are files and folders, or patterns of them, by which a folder of this layout is known; without any it can't
    be told from others.
    """

    licence: ClassVar[str]
    marks: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: SourceSettings) -> None:
        self.settings = settings

    @property
    def code(self) -> Path:
        """The file of the program that makes examples of rows: what is stored is made anew when it changes."""
        return Path(inspect.getfile(type(self)))

    @abstractmethod
    def columns(self) -> Mapping[str, Column]:
        """The label columns that this set offers, with their classes and units."""

    @abstractmethod
    def rows(self) -> Sequence[Row]:
        """All rows in a fixed order. Raises ValueError naming the folder or file that is missing."""

    @abstractmethod
    def load(self, row: Row) -> Example:
        """Read or make one row's example at its native size. Raises BadExample."""
