"""Stanford Cars (Krause et al. 2013), cut to the cars' boxes: the column `label` of 196 models.

As torchvision lays them out: `devkit/cars_meta.mat`, `devkit/cars_train_annos.mat`, `cars_test_annos_withlabels.mat`
(here or in `devkit`), `cars_train/*.jpg` and `cars_test/*.jpg`. There is no official val: it is drawn from train.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from models.spec import Column
from pipeline.datasets._boxed import Boxed, crop
from pipeline.datasets._listed import Listed, label_column, listed_rows, read_mat, whole
from pipeline.datasets.base import Example, Row, Source
from pipeline.datasets.files import find_root, inside, read_rgb

TRAIN, TEST = "cars_train", "cars_test"
META, TRAIN_LABELS, TEST_LABELS = (
    "devkit/cars_meta.mat",
    "devkit/cars_train_annos.mat",
    "cars_test_annos_withlabels.mat",
)
CORNERS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


class Cars(Source):
    """The layout -> one class column; boxes count pixels from 1, the last one within."""

    licence: ClassVar[str] = "non-commercial research only"
    marks: ClassVar[tuple[str, ...]] = (META, TRAIN_LABELS, TRAIN, TEST)

    @cached_property
    def _root(self) -> Path:
        return find_root(self.settings.root, self.marks, "Cars")

    @cached_property
    def _cars(self) -> Mapping[str, Boxed]:
        """What the tables say of each image, by its path in the root."""
        outer, inner = self._root / TEST_LABELS, self._root / "devkit" / TEST_LABELS
        test = _read_table(inner if inner.is_file() else outer, self._root, TEST, "test")
        return _read_table(self._root / TRAIN_LABELS, self._root, TRAIN, "train") | test

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        return tuple(map(str, read_mat(self._root / META, "class_names")))

    def columns(self) -> Mapping[str, Column]:
        return label_column(self._classes)

    def rows(self) -> Sequence[Row]:
        listed = [Listed(file, car.label, car.split) for file, car in self._cars.items()]
        return listed_rows(listed, self._root, self.settings, classes=len(self._classes), by_content=True)

    def load(self, row: Row) -> Example:
        image = crop(read_rgb(self._root / row.id), self._cars[row.id].box, f"{self._root / row.id}")
        return Example(image=image, labels={"label": row.label})


def _read_table(path: Path, root: Path, folder: str, split: str) -> dict[str, Boxed]:
    table, cars = read_mat(path, "annotations"), {}
    names = set(table[0]) if table and isinstance(table[0], dict) else set()
    if missing := {"fname", "class", *CORNERS} - names:
        raise ValueError(f"{path}: no {sorted(missing)[0]} of the cars; the test set's file must be the one withlabels")
    for number, entry in enumerate(table, start=1):
        file = f"{folder}/{entry['fname']}"
        inside(root / folder, str(entry["fname"]), f"{path}, car {number}")
        if file in cars:
            raise ValueError(f"{path}, car {number}: {file} stands there twice")
        where = f"{path}, car {number}"
        label, (x0, y0, x1, y1) = whole(entry["class"], where) - 1, (whole(entry[corner], where) for corner in CORNERS)
        if label < 0:
            raise ValueError(f"{path}, car {number}: the class {label + 1}, but they count from 1")
        cars[file] = Boxed(label, split, (x0 - 1, y0 - 1, x1, y1))
    return cars
