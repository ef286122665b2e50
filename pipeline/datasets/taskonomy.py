"""Taskonomy (Zamir et al. 2018): indoor scenes with a scene class and per-pixel labels, split by building.

`<modality>/<building>/point_<p>_view_<v>_domain_<modality>.png`, or `<modality>/taskonomy/<building>/`, as in
Omnidata, or `<building>/<modality>/`; modalities by any of their names (`FOLDERS`). One without a folder has no
column. `train_val_test_<partition>.csv`, here or in `splits_taskonomy`, of tiny, medium, full or fullplus, gives the
split.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from models.spec import Column
from pipeline.datasets._listed import read_rows
from pipeline.datasets._taskonomy_labels import (
    OBJECTS,
    SCENES,
    read_depth,
    read_normals,
    read_objects,
    read_scene,
    read_strength,
)
from pipeline.datasets.base import SPLITS, Example, Row, Source
from pipeline.datasets.files import draw, read_rgb
from pipeline.datasets.folders import require_root, subfolders
from pipeline.datasets.places365 import CATEGORIES, read_categories

# Folders and endings of files in the wild; where there are several folders, the first of these counts.
FOLDERS: dict[str, tuple[str, ...]] = {
    "scene": ("class_scene", "class_places", "places"),
    "segmentation": ("segment_semantic", "segmentsemantic"),
    "edges": ("edge_texture", "edge2d"),
    "keypoints": ("keypoints2d", "keypoint2d"),
    "depth": ("depth_zbuffer", "depth", "depth_euclidean", "mist"),
    "normals": ("normal",),
}
READERS: dict[str, Callable[[Path, np.ndarray], Any]] = {
    "scene": read_scene,
    "segmentation": read_objects,
    "edges": read_strength,
    "keypoints": read_strength,
    "depth": read_depth,
    "normals": read_normals,
}
IMAGES, OMNIDATA = "rgb", "taskonomy"
PARTITIONS = ("tiny", "medium", "full", "fullplus")
LAYOUT = "rgb/<building>/*.png, or <building>/rgb/*.png, and its labels beside them"


class Taskonomy(Source):
    """The layout -> `scene`, `segmentation`, `edges`, `keypoints`, `depth`, `normals`, those whose folders are there.

    `scene` is the likeliest of Places' 365 (named by `categories_places365.txt`, where there), `segmentation` 16 kinds
    of object and background. `edges` and `keypoints` are the strengths of texture edges and of 2D key points, 0 to 1; 0
    is stored as the smallest step above it, since 0 would mean unlabelled. An image whose file of a modality is missing
    has no such label.

    Of several split files the one of the fewest buildings counts that names all that are there; buildings in no list
    are left alone. Without such files `prepare` draws a split, building by building.
    """

    licence: ClassVar[str] = "non-commercial research and education only"
    marks: ClassVar[tuple[str, ...]] = (IMAGES, "depth_zbuffer")

    @cached_property
    def _root(self) -> Path:
        return require_root(self.settings.root, "Taskonomy", LAYOUT)

    @cached_property
    def _images(self) -> str:
        """Where a building's images lie below the root, with {} for its name."""
        if not (self._root / IMAGES).is_dir():
            return f"{{}}/{IMAGES}"
        inner = f"{IMAGES}/{OMNIDATA}"
        return f"{inner}/{{}}" if (self._root / inner).is_dir() else f"{IMAGES}/{{}}"

    @cached_property
    def _buildings(self) -> tuple[str, ...]:
        above = self._root / self._images.partition("{}")[0]
        found = [
            folder.name for folder in subfolders(above) if (self._root / self._images.format(folder.name)).is_dir()
        ]
        if not found:
            raise ValueError(f"Taskonomy: {self._root} holds no folders of images; it should hold {LAYOUT}")
        return tuple(found)

    @cached_property
    def _labels(self) -> Mapping[str, str]:
        """Where a building's labels lie, as for images, by column."""
        places = {}
        for column, names in FOLDERS.items():
            for place in (self._images.replace(IMAGES, name) for name in names):
                if any((self._root / place.format(building)).is_dir() for building in self._buildings):
                    places.setdefault(column, place)
        if not places:
            raise ValueError(f"Taskonomy: {self._root} holds images and no labels, none of {', '.join(FOLDERS)}")
        return places

    def columns(self) -> Mapping[str, Column]:
        path = self._root / CATEGORIES
        scenes = read_categories(path) if path.is_file() else tuple(map(str, range(SCENES)))
        if len(scenes) != SCENES:
            raise ValueError(f"{path}: {len(scenes)} classes, but {SCENES} are expected")
        columns = {
            "scene": Column(layout="class", classes=scenes),
            "segmentation": Column(layout="mask", classes=OBJECTS),
            "edges": Column(layout="field", scale=1 / 65535),
            "keypoints": Column(layout="field", scale=1 / 65535),
            "depth": Column(layout="field", scale=1 / 512, unit="m"),
            "normals": Column(layout="normals"),
        }
        return {name: columns[name] for name in self._labels}

    def rows(self) -> Sequence[Row]:
        splits, files = self._splits(), []
        for building in self._buildings:
            if splits and building.lower() not in splits:
                continue
            folder = self._images.format(building)
            names = sorted(name for name in os.listdir(self._root / folder) if name.endswith(".png"))
            files += [(building, f"{folder}/{name}") for name in names if name.startswith("point_")]
        if not files:
            raise ValueError(f"Taskonomy: {self._root} holds no images named point_*.png of the buildings in its lists")
        return [
            Row(id=f"{building}/{_view(file)}", origin=file, group=building, split=splits.get(building.lower()))
            for building, file in draw(files, self.settings)
        ]

    def load(self, row: Row) -> Example:
        image, (building, view) = read_rgb(self._root / row.origin), row.id.split("/")
        labels: dict[str, Any] = {}
        for column, place in self._labels.items():
            ending = ".npy" if column == "scene" else ".png"
            names = [f"{view}_domain_{name}{ending}" for name in FOLDERS[column]] + [f"{view}{ending}"]
            found = (path for path in (self._root / place.format(building) / name for name in names) if path.is_file())
            path = next(found, None)
            labels[column] = READERS[column](path, image) if path else None
        return Example(image=image, labels=labels)

    def _splits(self) -> Mapping[str, str]:
        """The split of each building that the list names, in small letters; empty where there is no list."""
        names = [f"train_val_test_{partition}.csv" for partition in PARTITIONS]
        folders = (self._root, self._root / "splits_taskonomy")
        paths = [path for name in names for path in (folder / name for folder in folders) if path.is_file()]
        lists = [_read_splits(path) for path in paths]
        whole = [splits for splits in lists if {building.lower() for building in self._buildings} <= splits.keys()]
        return next(iter(whole or lists[-1:]), {})


def _view(file: str) -> str:
    return file.rpartition("/")[2].removesuffix(".png").partition("_domain_")[0]


def _read_splits(path: Path) -> dict[str, str]:
    (header, rows), splits = read_rows(path, ","), {}
    if not {"id", *SPLITS} <= set(header):
        raise ValueError(f"{path}: expected a header with id, train, val and test")
    for number, cells in enumerate(rows, start=1):
        parts = [split for split in SPLITS if cells[split] == "1"]
        if len(parts) > 1 or cells["id"].lower() in splits:
            raise ValueError(f"{path} row {number}: {cells['id']} is listed twice")
        splits |= {cells["id"].lower(): part for part in parts}
    return splits
