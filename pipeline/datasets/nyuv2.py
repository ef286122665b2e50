"""NYU Depth v2 in the "three folders, same stem" layout: per pixel 13 or 39 classes, depth, edges, surface normals.

`nyu_images/<i>.jpg`, `nyu_labels40/<i>.png` (class - 1; 39 = otherprop and unlabelled together),
`nyu_depths/<i>.png` (8 bits, metres = value / 25.5), `official_train.txt` and `official_test.txt` (stems). This layout
shows every scene mirrored. Edges are those of the 39 classes, normals come from the depth.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image, ImageFilter

from models.spec import IGNORE, Column
from pipeline.datasets._listed import read_lines
from pipeline.datasets._normals import normals_from_depth
from pipeline.datasets.base import BadExample, Example, Row, Source
from pipeline.datasets.files import (
    content_groups,
    draw,
    find_root,
    inside,
    read_field,
    read_ids,
    read_rgb,
    require_same_size,
)

SPLIT_FILES = {"train": "official_train.txt", "test": "official_test.txt"}
LAYOUT = ("nyu_images", "nyu_labels40", "nyu_depths", *SPLIT_FILES.values())
DEPTH_STEPS_PER_METRE = 25.5
# Rows and columns of 480 x 640 that the depth camera saw: the field's usual crop, mirrored. The rest is filled in.
VIEW = (45, 471, 39, 599)
OTHERPROP = 39
SEAM = 6  # pixels: the widest unlabelled seam that the annotators left between two regions

# Of the official 40 classes (Gupta et al. 2013) the last, otherprop, can't be told from unlabelled in this layout.
# fmt: off
CLASSES_39 = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter",
    "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books",
    "refridgerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand",
    "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture",
)
CLASSES_13 = (
    "bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa", "table", "tv", "wall",
    "window",
)
# Couprie et al. 2013: the class of 13 for each of the 39, counted from 0.
TO_13 = (
    11, 4, 5, 0, 3, 8, 9, 11, 12, 5, 7, 5, 12, 9, 5, 12, 5, 6, 6, 4, 6, 2, 1, 5, 10, 6, 6, 6, 6, 6, 6, 5, 6, 6, 6, 6,
    6, 6, 5,
)
# fmt: on


class NYUv2(Source):
    """The three folders -> `segmentation`, `segmentation40`, `depth`, `edges`, `normals`, all at `settings.size`."""

    licence: ClassVar[str] = "none stated; research use"
    marks: ClassVar[tuple[str, ...]] = LAYOUT

    @cached_property
    def _root(self) -> Path:
        return find_root(self.settings.root, self.marks, "NYUv2")

    def columns(self) -> Mapping[str, Column]:
        return {
            "segmentation": Column(layout="mask", classes=CLASSES_13),
            "segmentation40": Column(layout="mask", classes=CLASSES_39),
            "depth": Column(layout="field", scale=0.001, unit="m"),
            "edges": Column(layout="mask", classes=("none", "edge")),
            "normals": Column(layout="normals"),
        }

    def rows(self) -> Sequence[Row]:
        lists = {split: read_lines(self._root / file) for split, file in SPLIT_FILES.items()}
        listed = [(split, stem) for split, lines in lists.items() for line in lines for stem in line.split()]
        stems = draw(listed, self.settings)
        files = [inside(self._root, f"nyu_images/{stem}.jpg", SPLIT_FILES[split]) for split, stem in stems]
        return [
            Row(id=stem, origin=f"{SPLIT_FILES[split]}: nyu_images/{stem}.jpg", group=group, split=split)
            for (split, stem), group in zip(stems, content_groups(files), strict=True)
        ]

    def load(self, row: Row) -> Example:
        """One row at `settings.size`, not at 640x480: edges drawn there and shrunk later would have holes."""
        height, width = self.settings.size
        image = read_rgb(self._path("nyu_images", row.id))
        label_path, depth_path = self._path("nyu_labels40", row.id), self._path("nyu_depths", row.id)
        label, depth = read_ids(label_path), read_field(depth_path) / DEPTH_STEPS_PER_METRE
        require_same_size(label_path, label, image)
        require_same_size(depth_path, depth, image)
        label = _without_otherprop(label, label_path)
        segmentation = _nearest(label, height, width)
        small = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        return Example(
            image=np.array(small),
            labels={
                "segmentation": _to_13(segmentation),
                "segmentation40": segmentation,
                "depth": _nearest(depth, height, width),
                "edges": region_edges(_nearest(close_seams(label), height, width)),
                "normals": normals_from_depth(_seen(depth), (height, width), 1 / DEPTH_STEPS_PER_METRE, mirrored=True),
            },
        )

    def _path(self, folder: str, stem: str) -> Path:
        return self._root / folder / f"{stem}{'.jpg' if folder == 'nyu_images' else '.png'}"


def close_seams(label: np.ndarray) -> np.ndarray:
    """Class ids [H, W] -> the same with unlabelled seams of at most `SEAM` pixels given to the regions beside them.

    Two boundaries in three lie in such a seam: left unlabelled, they would be lost as edges.
    """
    unlabelled = Image.fromarray(((label == IGNORE) * 255).astype(np.uint8))
    wide = np.array(unlabelled.filter(ImageFilter.MinFilter(SEAM + 1)).filter(ImageFilter.MaxFilter(SEAM + 1))) > 0
    closed = np.pad(np.where(wide, IGNORE, label), 1, constant_values=IGNORE)
    centre = closed[1:-1, 1:-1]
    for _ in range(SEAM):
        for beside in (closed[:-2, 1:-1], closed[2:, 1:-1], closed[1:-1, :-2], closed[1:-1, 2:]):
            np.copyto(centre, beside.copy(), where=(centre == IGNORE) & ~wide)
    return centre


def region_edges(label: np.ndarray) -> np.ndarray:
    """Class ids [H, W] -> 1 on both sides of a boundary (a 4-neighbour has another class), else 0.

    255 where that can't be told: an unlabelled pixel, or a neighbour of one that has no boundary elsewhere.
    """
    edge = np.zeros(label.shape, dtype=bool)
    unknown = label == IGNORE
    unlabelled = unknown.copy()
    before, after = slice(None, -1), slice(1, None)
    for first, second in (((before,), (after,)), ((slice(None), before), (slice(None), after))):
        both = ~unlabelled[first] & ~unlabelled[second]
        differ = both & (label[first] != label[second])
        edge[first] |= differ
        edge[second] |= differ
        unknown[first] |= ~both
        unknown[second] |= ~both
    return np.where(edge, 1, np.where(unknown, IGNORE, 0)).astype(np.uint8)


def _without_otherprop(label: np.ndarray, path: Path) -> np.ndarray:
    wrong = label[(label > OTHERPROP) & (label != IGNORE)]
    if wrong.size:
        raise BadExample(
            f"{path}: {wrong.size} pixels are out of range, with values up to {wrong.max()}: class - 1 is expected, "
            f"0 to {OTHERPROP}"
        )
    return np.where(label == OTHERPROP, np.uint8(IGNORE), label)


def _seen(depth: np.ndarray) -> np.ndarray:
    """Depth [H, W] -> the same, 0 outside the depth camera's view."""
    height, width = depth.shape
    top, bottom, left, right = np.array(VIEW) * [height / 480, height / 480, width / 640, width / 640]
    rows, columns = np.arange(height)[:, None] + 0.5, np.arange(width) + 0.5
    return np.where((rows > top) & (rows < bottom) & (columns > left) & (columns < right), depth, 0)


def _to_13(label: np.ndarray) -> np.ndarray:
    table = np.full(256, IGNORE, dtype=np.uint8)
    table[: len(TO_13)] = TO_13
    return table[label]


def _nearest(array: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.array(Image.fromarray(array).resize((width, height), Image.Resampling.NEAREST))
