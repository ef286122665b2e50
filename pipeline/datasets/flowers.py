"""Oxford Flowers-102 (Nilsback and Zisserman 2008): the column `label` of 102 kinds, called by their numbers from 1.

`jpg/image_00001.jpg` on, `imagelabels.mat` and `setid.mat`, which gives the official train, val and test.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from models.spec import Column
from pipeline.datasets._listed import Listed, label_column, listed_rows, load_listed, read_mat, whole
from pipeline.datasets.base import Example, Row, Source
from pipeline.datasets.files import find_root

IMAGES, LABELS, SPLITS = "jpg", "imagelabels.mat", "setid.mat"
PARTS = {"train": "trnid", "val": "valid", "test": "tstid"}
CLASSES = tuple(str(number) for number in range(1, 103))


class Flowers(Source):
    """The layout -> one class column."""

    licence: ClassVar[str] = "none stated; research use"
    marks: ClassVar[tuple[str, ...]] = (IMAGES, LABELS, SPLITS)

    @cached_property
    def _root(self) -> Path:
        return find_root(self.settings.root, self.marks, "Flowers")

    def columns(self) -> Mapping[str, Column]:
        return label_column(CLASSES)

    def rows(self) -> Sequence[Row]:
        labels = read_mat(self._root / LABELS, "labels")
        listed = []
        for split, part in PARTS.items():
            path = self._root / SPLITS
            for number in (whole(value, f"{path}: {part}") for value in read_mat(path, part)):
                if not 1 <= number <= len(labels):
                    raise ValueError(f"{path}: {part} holds {number}, but {LABELS} has {len(labels)} labels")
                if (label := whole(labels[number - 1], f"{self._root / LABELS}: image {number}")) < 1:
                    raise ValueError(
                        f"{self._root / LABELS}: image {number} is of class {label}, but they count from 1"
                    )
                listed.append(Listed(f"{IMAGES}/image_{number:05}.jpg", label - 1, split))
        return listed_rows(listed, self._root, self.settings, classes=len(CLASSES), by_content=False)

    def load(self, row: Row) -> Example:
        return load_listed(self._root, row)
