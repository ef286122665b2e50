"""Cityscapes (Cordts et al. 2016) in its native layout: classes and objects per pixel, and disparity.

`leftImg8bit/<split>/<city>/<city>_<sequence>_<frame>_leftImg8bit.png` and, named alike, `gtFine/...gtFine_labelIds.png`
and `...gtFine_instanceIds.png`; where there, `disparity/..._disparity.png`. Test labels are withheld, so the official
val is our `test`, and val is drawn from train; the official test images are left alone.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from models.spec import IGNORE, Column
from pipeline.datasets._masks import read_mask
from pipeline.datasets.base import BadExample, Example, Row, Source
from pipeline.datasets.files import draw, find_root, read_field, read_rgb, require_same_size

IMAGES, LABELS, DISPARITY = "leftImg8bit", "gtFine", "disparity"
SPLITS = {"train": "train", "val": "test"}
ENDINGS = {
    "segmentation": (LABELS, "gtFine_labelIds"),
    "instances": (LABELS, "gtFine_instanceIds"),
    "disparity": (DISPARITY, "disparity"),
}
# The 19 classes of the benchmark, by their ids in the files; the other ids, 0 to 33, are not evaluated.
CLASSES_19 = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
TO_19 = dict.fromkeys(range(34), IGNORE) | {number: index for index, number in enumerate(CLASSES_19)}
THINGS = range(24, 34)  # classes with objects; caravan and trailer, 29 and 30, are not evaluated
STEPS_PER_PIXEL = 256  # of disparity


class Cityscapes(Source):
    """The layout -> `segmentation` of 19 classes, `instances` of the 8 with objects, and `disparity` where it stands.

    Disparity is in pixels of the original image, 2048 wide, whatever the stored size; one of 0, infinitely far, is
    stored as the smallest step, for 0 = none found. Frames of one sequence are a group. An image without one of the
    files is unlabelled there.
    """

    licence: ClassVar[str] = "non-commercial: research, teaching and personal experiments only"
    marks: ClassVar[tuple[str, ...]] = (IMAGES, LABELS)

    @cached_property
    def _root(self) -> Path:
        return find_root(self.settings.root, self.marks, "Cityscapes")

    def columns(self) -> Mapping[str, Column]:
        columns = {
            "segmentation": Column(layout="mask", classes=tuple(CLASSES_19.values())),
            "instances": Column(layout="instances"),
        }
        if (self._root / DISPARITY).is_dir():
            columns["disparity"] = Column(layout="field", scale=1 / STEPS_PER_PIXEL, unit="px")
        return columns

    def rows(self) -> Sequence[Row]:
        found: list[Row] = []
        for part, split in SPLITS.items():
            for path in sorted((self._root / IMAGES / part).glob(f"*/*_{IMAGES}.png")):
                name = path.name.removesuffix(f"_{IMAGES}.png")
                origin = path.relative_to(self._root).as_posix()
                found.append(Row(id=name, origin=origin, group=name.rpartition("_")[0], split=split))
        for kind, ending in (ENDINGS["segmentation"], (IMAGES, IMAGES)):
            if not any((self._root / kind / "train").glob(f"*/*_{ending}.png")):
                raise ValueError(f"Cityscapes: {self._root / kind} holds no train/<city>/*_{ending}.png")
        return draw(found, self.settings)

    def load(self, row: Row) -> Example:
        image = read_rgb(self._root / row.origin)
        _, part, city, _ = row.origin.split("/")
        labels: dict[str, np.ndarray | None] = {}
        for name in self.columns():
            kind, ending = ENDINGS[name]
            path = self._root / kind / part / city / f"{row.id}_{ending}.png"
            labels[name] = READERS[name](path, image) if path.is_file() else None
        return Example(image=image, labels=labels)


def _segmentation(path: Path, image: np.ndarray) -> np.ndarray:
    return read_mask(path, TO_19, image)


def _instances(path: Path, image: np.ndarray) -> np.ndarray:
    """Class * 1000 + number for an object, else the class -> 1, 2, ... for objects; 0 where there is none.

    255 where that can't be told: a group of objects without numbers, and what is not evaluated.
    """
    stored = read_field(path).astype(np.int64)
    require_same_size(path, stored, image)
    present = np.flatnonzero(np.bincount(stored.ravel()))
    table = np.full(present[-1] + 1, IGNORE, np.uint8)
    count = 0
    for value in map(int, present):
        kind = value // 1000 if value >= 1000 else value
        if kind not in TO_19:
            raise BadExample(f"{path}: {np.sum(stored == value)} pixels have the instance {value}; classes end at 33")
        if TO_19[kind] == IGNORE:
            continue
        if kind not in THINGS:
            table[value] = 0
        elif value >= 1000:
            count += 1
            table[value] = min(count, IGNORE)
    if count >= IGNORE:
        raise BadExample(f"{path}: {count} objects, but at most {IGNORE - 1} can be told apart")
    return table[stored]


def _disparity(path: Path, image: np.ndarray) -> np.ndarray:
    """0 where none was found, else 256 * disparity + 1 -> pixels of the image, 0 = unlabelled."""
    stored = read_field(path)
    require_same_size(path, stored, image)
    return np.where(stored > 0, np.maximum(stored - 1, 1), 0) / np.float32(STEPS_PER_PIXEL)


READERS: dict[str, Callable[[Path, np.ndarray], np.ndarray]] = {
    "segmentation": _segmentation,
    "instances": _instances,
    "disparity": _disparity,
}
