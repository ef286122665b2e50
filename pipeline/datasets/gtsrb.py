"""German traffic signs (Stallkamp et al. 2012) as torchvision lays them out: the column `label` of 43 classes.

`GTSRB/Training/<class>/<track>_<frame>.ppm`, `GTSRB/Final_Test/Images/*.ppm` and `GT-final_test.csv`. A track is one
physical sign, seen by a car that drives up to it.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from models.spec import Column
from pipeline.datasets._listed import is_count, read_rows
from pipeline.datasets.base import Example, Row, Source
from pipeline.datasets.files import draw, find_root, inside, read_rgb
from pipeline.datasets.folders import images_in, subfolders

TRAIN, TEST, ANSWERS = "GTSRB/Training", "GTSRB/Final_Test/Images", "GT-final_test.csv"
CLASSES = tuple(f"{number:02}" for number in range(43))


class GTSRB(Source):
    """The layout -> one class column, a sign's number as two digits; the frames of one sign stay on one side."""

    licence: ClassVar[str] = "none stated; its makers ask to be cited"
    marks: ClassVar[tuple[str, ...]] = (TRAIN, TEST, ANSWERS)

    @cached_property
    def _root(self) -> Path:
        return find_root(self.settings.root, self.marks, "GTSRB")

    @cached_property
    def _labels(self) -> Mapping[str, str]:
        """The class of every image, by its path in the root."""
        return _training(self._root) | _test(self._root)

    def columns(self) -> Mapping[str, Column]:
        return {"label": Column(layout="class", classes=CLASSES)}

    def rows(self) -> Sequence[Row]:
        return [_row(file) for file in draw(list(self._labels), self.settings)]

    def load(self, row: Row) -> Example:
        return Example(image=read_rgb(self._root / row.id), labels={"label": self._labels[row.id]})


def _row(file: str) -> Row:
    if file.startswith(TEST):
        return Row(id=file, origin=file, group=file, split="test")
    # Tracks are counted within their class.
    return Row(id=file, origin=file, group=file.rsplit("_", 1)[0], split="train")


def _training(root: Path) -> dict[str, str]:
    labels = {}
    for folder in subfolders(root / TRAIN):
        if not folder.name.isdecimal() or int(folder.name) >= len(CLASSES):
            raise ValueError(f"{folder}: a folder of {TRAIN} must be the number of a class, 00000 to 00042")
        for path in images_in(folder):
            if "_" not in path.stem:
                raise ValueError(f"{path}: a training image must be named <track>_<frame>.ppm")
            labels[path.relative_to(root).as_posix()] = CLASSES[int(folder.name)]
    if not labels:
        raise ValueError(f"{root / TRAIN} holds no images; it should hold <class>/<track>_<frame>.ppm")
    return labels


def _test(root: Path) -> dict[str, str]:
    path, labels = root / ANSWERS, {}
    header, rows = read_rows(path, ";")
    if not {"Filename", "ClassId"} <= set(header):
        raise ValueError(f"{path}: expected a header with Filename;...;ClassId; is it the file without the answers?")
    for number, cells in enumerate(rows, start=1):
        image, answer = cells["Filename"], cells["ClassId"]
        if not is_count(answer) or int(answer) >= len(CLASSES):
            raise ValueError(f"{path} row {number}: the class of {image} is {answer!r}, but 0 to 42 is expected")
        if f"{TEST}/{image}" in labels:
            raise ValueError(f"{path} row {number}: the image {image} stands there twice")
        inside(root / TEST, image, f"{path} row {number}")
        labels[f"{TEST}/{image}"] = CLASSES[int(answer)]
    return labels
