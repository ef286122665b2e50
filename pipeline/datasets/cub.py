"""Caltech-UCSD Birds-200-2011 (Wah et al. 2011), cut to the birds' boxes: the column `label` of 200 species.

`images/`, and lists with a number first in each line: `images.txt`, `classes.txt`, `image_class_labels.txt`,
`train_test_split.txt` (1 = train) and `bounding_boxes.txt` (x, y, width, height). There is no official val: it is drawn
from train.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, TypeVar

from models.spec import Column
from pipeline.datasets._boxed import Boxed, crop
from pipeline.datasets._listed import Listed, label_column, listed_rows, read_lines
from pipeline.datasets.base import Example, Row, Source
from pipeline.datasets.files import find_root, inside, read_rgb

T = TypeVar("T")
IMAGES, NAMES, CLASSES = "images", "images.txt", "classes.txt"
LABELS, SPLITS, BOXES = "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt"


class CUB(Source):
    """The layout -> one class column, a species called as its folder: `001.Black_footed_Albatross`."""

    licence: ClassVar[str] = "non-commercial research and education only"
    marks: ClassVar[tuple[str, ...]] = (IMAGES, NAMES, CLASSES, LABELS, SPLITS, BOXES)

    @cached_property
    def _root(self) -> Path:
        return find_root(self.settings.root, self.marks, "CUB")

    @cached_property
    def _birds(self) -> Mapping[str, Boxed]:
        """What the lists say of each image, by its path in the root."""
        names = self._read(NAMES, _one)
        labels, splits, boxes = self._read(LABELS, _number), self._read(SPLITS, _split), self._read(BOXES, _box)
        birds: dict[str, Boxed] = {}
        for key, name in names.items():
            if bare := [
                file for file, found in ((LABELS, labels), (SPLITS, splits), (BOXES, boxes)) if key not in found
            ]:
                raise ValueError(f"{self._root / bare[0]}: no line for the image {key} of {NAMES}")
            inside(self._root / IMAGES, name, f"{self._root / NAMES}, image {key}")
            birds[f"{IMAGES}/{name}"] = Boxed(labels[key] - 1, splits[key], boxes[key])
        return birds

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        return tuple(self._read(CLASSES, _one).values())

    def columns(self) -> Mapping[str, Column]:
        return label_column(self._classes)

    def rows(self) -> Sequence[Row]:
        listed = [Listed(file, bird.label, bird.split) for file, bird in self._birds.items()]
        return listed_rows(listed, self._root, self.settings, classes=len(self._classes), by_content=True)

    def load(self, row: Row) -> Example:
        image = crop(read_rgb(self._root / row.id), self._birds[row.id].box, f"{self._root / BOXES}: {row.id}")
        return Example(image=image, labels={"label": row.label})

    def _read(self, name: str, parse: Callable[[Sequence[str]], T]) -> dict[str, T]:
        """One of the lists -> what its lines say, by the number that they begin with."""
        path, found = self._root / name, {}
        for number, line in enumerate(read_lines(path), start=1):
            key, *words = line.split() or [""]
            if key in found:
                raise ValueError(f"{path} line {number}: the number {key} stands there twice")
            try:
                found[key] = parse(words)
            except (ValueError, KeyError):
                raise ValueError(f"{path} line {number}: {line!r} is not what the layout has there") from None
        return found


def _one(words: Sequence[str]) -> str:
    (word,) = words
    return word


def _number(words: Sequence[str]) -> int:
    number = int(_one(words))
    if number < 1:
        raise ValueError(number)
    return number


def _split(words: Sequence[str]) -> str:
    return {"1": "train", "0": "test"}[_one(words)]


def _box(words: Sequence[str]) -> tuple[float, float, float, float]:
    x, y, width, height = map(float, words)
    return x, y, x + width, y + height
