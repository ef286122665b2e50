"""COCO's `panoptic_*.json` and its PNGs (Kirillov et al. 2019) -> the class of each pixel.

A PNG codes a segment's number as red + 256 green + 65536 blue, 0 = unlabelled; the JSON says each segment's category.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.spec import IGNORE
from pipeline.datasets._coco_json import Id, file_name, read_coco, refuse_doubles, value_of
from pipeline.datasets.base import BadExample
from pipeline.datasets.files import read_colours, require_same_size


@dataclass(frozen=True, kw_only=True)
class Panoptic:
    """One JSON: by an image's number its PNG, and the rows of `segments` (segment, class) that are its own."""

    path: Path
    classes: tuple[str, ...]
    entries: Mapping[int, tuple[str, int, int]]
    segments: np.ndarray  # [S, 2]

    def mask_of(self, number: int, image: np.ndarray) -> np.ndarray | None:
        """An image -> its class indices uint8 [H, W], 255 = unlabelled; None where the JSON has no entry for it."""
        if number not in self.entries:
            return None
        file, start, end = self.entries[number]
        path = self.path.with_suffix("") / file
        colours = read_colours(path).astype(np.int64)
        require_same_size(path, colours, image)
        ids = colours @ np.array([1, 256, 65536])
        own = self.segments[start:end]
        known, classes = np.append(own[:, 0], 0), np.append(own[:, 1], IGNORE)
        order = np.argsort(known)
        place = order[np.searchsorted(known, ids, sorter=order).clip(max=len(known) - 1)]
        if (strange := ids[known[place] != ids]).size:
            raise BadExample(f"{path}: {strange.size} pixels of segment {strange[0]}, which {self.path.name} hasn't")
        return classes[place].astype(np.uint8)


def read_panoptic(path: Path, numbers: Mapping[Id, int]) -> Panoptic:
    """A JSON, and the numbers of the images asked for by id -> their segments. ValueError names the entry at fault."""
    if not path.with_suffix("").is_dir():
        raise ValueError(f"{path}: there is no folder {path.stem} of its PNGs beside it; unpack {path.stem}.zip there")
    coco = read_coco(path)
    refuse_doubles(path, coco)
    if len(coco.classes) > IGNORE:
        raise ValueError(f"{path}: {len(coco.classes)} categories, but a mask has at most {IGNORE} classes")
    index = {key: number for number, key in enumerate(coco.classes)}
    entries: dict[int, tuple[str, int, int]] = {}
    segments: list[tuple[int, int]] = []
    for n, entry in enumerate(coco.annotations):
        where, number = f"annotations[{n}]", numbers.get(entry["image_id"])
        if number is None:
            continue
        if number in entries:
            raise ValueError(f"{path}: {where}: the image {entry['image_id']!r} has an entry already")
        found = _segments(path, where, entry, index)
        entries[number] = file_name(path, where, entry), len(segments), len(segments) + len(found)
        segments += found
    return Panoptic(
        path=path,
        classes=tuple(coco.classes.values()),
        entries=entries,
        segments=np.array(segments, dtype=np.int64).reshape(-1, 2),
    )


def _segments(path: Path, where: str, entry: Mapping[str, Any], index: Mapping[Id, int]) -> list[tuple[int, int]]:
    """An entry -> its segments' numbers and classes."""
    found = []
    segments = value_of(path, where, entry, "segments_info")
    if not (isinstance(segments, list) and all(isinstance(segment, dict) for segment in segments)):
        raise ValueError(f"{path}: {where}: the segments_info must be a list of objects")
    for segment in segments:
        number, category = (value_of(path, f"{where}: segment", segment, name) for name in ("id", "category_id"))
        if type(number) is not int or not 0 <= number < 1 << 24:
            raise ValueError(f"{path}: {where}: the id of a segment is {number!r}, but a number of 24 bits is expected")
        if type(category) not in (int, str) or category not in index:
            raise ValueError(f"{path}: {where}: segment {number}: there is no category {category!r}")
        found.append((number, index[category]))
    return found
