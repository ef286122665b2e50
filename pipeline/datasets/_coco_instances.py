"""COCO's `instances_*.json` -> the boxes of every image, in a few arrays that processes can share cheaply."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.datasets._coco_json import Id, read_coco, refuse_doubles, value_of
from pipeline.datasets.base import BadExample


@dataclass(frozen=True, kw_only=True)
class Instances:
    """One JSON: its images in the order of the list, by number, and their annotations.

    N images, M annotations. Each annotation is x, y, width, height, class and whether it is a region of a crowd; those
    of image n are `entries_M6[starts[n] : starts[n + 1]]`.
    """

    path: Path
    classes: tuple[str, ...]
    files: Sequence[str]  # below the root
    numbers: Mapping[Id, int]
    sizes: np.ndarray  # [N, 2]: height, width; 0, 0 where not stated
    starts: np.ndarray  # [N + 1]
    entries_M6: np.ndarray

    def objects_of(self, number: int) -> np.ndarray:
        """An image -> the classes that occur in it, with repeats."""
        return self._entries(number)[:, 4].astype(np.int64)

    def boxes_of(self, number: int) -> np.ndarray:
        """An image -> x0, y0, x1, y1, class of its objects [P, 5]; no regions of a crowd, and no boxes without area."""
        entries = self._entries(number)
        boxes = entries[entries[:, 5] == 0, :5].copy()
        if len(wrong := boxes[~(np.isfinite(boxes).all(1) & (boxes[:, 2:4] >= 0).all(1))]):
            x, y, width, height, kind = wrong[0]
            raise BadExample(
                f"{self.path}: the box {x:g}, {y:g}, {width:g}, {height:g} of a {self.classes[int(kind)]} in "
                f"{self.files[number]} must be x, y, width, height, in numbers"
            )
        boxes = boxes[(boxes[:, 2:4] > 0).all(1)]
        boxes[:, 2:4] += boxes[:, :2]
        return boxes

    def _entries(self, number: int) -> np.ndarray:
        return self.entries_M6[self.starts[number] : self.starts[number + 1]]


def read_instances(path: Path, folder: str) -> Instances:
    """A JSON, and its images' folder below the root -> its images and objects. ValueError names the entry at fault."""
    coco = read_coco(path)
    refuse_doubles(path, coco)
    numbers = {key: number for number, key in enumerate(coco.pictures)}
    index = {key: number for number, key in enumerate(coco.classes)}
    owners = np.array([numbers[entry["image_id"]] for entry in coco.annotations], dtype=np.int64)
    entries = [_entry(path, f"annotations[{n}]", entry, index) for n, entry in enumerate(coco.annotations)]
    order = np.argsort(owners, kind="stable")
    return Instances(
        path=path,
        classes=tuple(coco.classes.values()),
        files=[f"{folder}/{picture.file}" for picture in coco.pictures.values()],
        numbers=numbers,
        sizes=np.array([[p.height or 0, p.width or 0] for p in coco.pictures.values()], np.int32).reshape(-1, 2),
        starts=np.searchsorted(owners[order], np.arange(len(numbers) + 1)),
        entries_M6=np.array(entries, dtype=np.float32).reshape(-1, 6)[order],
    )


def _is_number(side: Any) -> bool:
    return type(side) is float or (type(side) is int and abs(side) < 1 << 53)


def _entry(path: Path, where: str, entry: Mapping[str, Any], index: Mapping[Id, int]) -> tuple[float, ...]:
    box = value_of(path, where, entry, "bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
        raise ValueError(f"{path}: {where}: the bbox is {box!r}, but four numbers are expected")
    return (*box, index[value_of(path, where, entry, "category_id")], bool(entry.get("iscrowd", 0)))
