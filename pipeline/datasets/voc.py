"""Pascal VOC (Everingham et al. 2010): boxes, and a class per pixel where `SegmentationClass` stands.

`JPEGImages/<name>.jpg`; `Annotations/<name>.xml` of the names in `ImageSets/Main/{train,val,trainval,test}.txt`, and
`SegmentationClass/<name>.png` of those in `ImageSets/Segmentation/`. Each needs train or trainval; images in no list
are left alone. VOC's test labels are withheld: where no list is called test, val is our `test`, and val is drawn from
train.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

import numpy as np

from models.spec import IGNORE, Column
from pipeline.datasets._boxes import cut_boxes, require_stated_size
from pipeline.datasets._listed import read_lines
from pipeline.datasets._masks import read_mask
from pipeline.datasets.base import SPLITS, BadExample, Example, Row, Source
from pipeline.datasets.files import content_groups, draw, find_root, inside, read_ids, read_rgb
from pipeline.datasets.folders import images_in

ANNOTATIONS, MASKS, IMAGES = "Annotations", "SegmentationClass", "JPEGImages"
LISTS = {"boxes": "ImageSets/Main", "segmentation": "ImageSets/Segmentation"}
SIDES = ("xmin", "ymin", "xmax", "ymax")
# fmt: off
CLASSES_20 = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on


class VOC(Source):
    """The layout -> `boxes` of the classes that occur, and `segmentation`: background and VOC's 20 classes.

    Where the boxes have other classes, those of the masks are called by their numbers. An image in one of the two lists
    has one of the two labels; where their splits differ, it is kept from training. Objects marked as difficult,
    truncated or occluded are boxes like others. Corners count pixels from 1, the last one within: a box spans xmin - 1
    to xmax. What lies beyond the image is cut off. A box from a pixel to the same row or column is a click without a
    drag, and left out; public sets hold some.
    """

    licence: ClassVar[str] = "that of the images in the folders"
    marks: ClassVar[tuple[str, ...]] = (ANNOTATIONS, IMAGES, LISTS["boxes"])

    @cached_property
    def _root(self) -> Path:
        root = self.settings.root
        kit = root / "VOCdevkit" if root else None
        return find_root(kit if kit and kit.is_dir() else root, self.marks, "VOC")

    @cached_property
    def _images(self) -> Mapping[str, str]:
        """Each image's path in the root, by its name."""
        return {path.stem: f"{IMAGES}/{path.name}" for path in images_in(self._root / IMAGES)}

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        names: set[str] = set()
        for path in sorted((self._root / ANNOTATIONS).glob("*.xml")):
            try:
                names |= {item.findtext("name", "").strip() for item in _parse(path).iter("object")} - {""}
            except BadExample:
                continue  # a row's own error, for load to report
        if not names:
            raise ValueError(f"VOC: no file of {self._root / ANNOTATIONS} holds an <object> with a <name>")
        return tuple(sorted(names))

    @cached_property
    def _mask_ids(self) -> Mapping[int, int]:
        return {number: number for number in (*range(len(self._mask_classes)), IGNORE)}

    @cached_property
    def _mask_classes(self) -> tuple[str, ...]:
        if set(self._classes) <= set(CLASSES_20):
            return ("background", *CLASSES_20)
        last = 0
        for name in self._listed["segmentation"]:
            try:
                ids = read_ids(self._mask(name))
            except BadExample:
                continue  # a row's own error, for load to report
            last = max(last, int(ids[ids != IGNORE].max(initial=0)))
        return tuple(str(number) for number in range(last + 1))

    def columns(self) -> Mapping[str, Column]:
        columns = {"boxes": Column(layout="boxes", classes=self._classes)}
        if "segmentation" in self._listed:
            columns["segmentation"] = Column(layout="mask", classes=self._mask_classes)
        return columns

    def rows(self) -> Sequence[Row]:
        kept = draw(list(self._splits), self.settings)
        files = [self._images.get(name, f"{IMAGES}/{name}.jpg") for name in kept]
        groups = content_groups([self._root / file for file in files])
        return [
            Row(id=name, origin=file, group=group, split=self._splits[name])
            for name, file, group in zip(kept, files, groups, strict=True)
        ]

    @cached_property
    def _splits(self) -> Mapping[str, str]:
        """Each listed name's split: of two that differ, the one further from training."""
        splits: dict[str, str] = {}
        for names in self._listed.values():
            for name, split in names.items():
                splits[name] = max(splits.get(name, split), split, key=SPLITS.index)
        tested = "test" in splits.values()
        return {name: "test" if split == "val" and not tested else split for name, split in splits.items()}

    @cached_property
    def _listed(self) -> Mapping[str, Mapping[str, str]]:
        """For each column the names that have it, with the list that each stands in."""
        kinds = [kind for kind in LISTS if kind == "boxes" or self._has_masks]
        return {kind: _read_lists(self._root / LISTS[kind]) for kind in kinds}

    @property
    def _has_masks(self) -> bool:
        return all((self._root / folder).is_dir() for folder in (MASKS, LISTS["segmentation"]))

    def load(self, row: Row) -> Example:
        image = read_rgb(self._root / row.origin)
        labels: dict[str, np.ndarray] = {}
        if row.id in self._listed["boxes"]:
            labels["boxes"] = self._boxes(row, image)
        if row.id in self._listed.get("segmentation", ()):
            labels["segmentation"] = read_mask(self._mask(row.id), self._mask_ids, image)
        return Example(image=image, labels={name: labels.get(name) for name in self._listed})

    def _boxes(self, row: Row, image: np.ndarray) -> np.ndarray:
        path = self._root / ANNOTATIONS / f"{row.id}.xml"
        found = _parse(path)
        width, height = (found.findtext(f"size/{side}", "").strip() for side in ("width", "height"))
        require_stated_size(path, width, height, row.origin, image)
        boxes = [_box(item, self._classes, path) for item in found.iter("object")]
        drawn = [box for box in boxes if box is not None]
        return cut_boxes(path, np.array(drawn, dtype=np.float32).reshape(-1, 5), image)

    def _mask(self, name: str) -> Path:
        return self._root / MASKS / f"{name}.png"


def _read_lists(folder: Path) -> dict[str, str]:
    """A folder of lists -> each name's list; trainval is the training list where there is no other."""
    lists = {split: folder / f"{split}.txt" for split in SPLITS}
    if not lists["train"].is_file():
        lists = {"train": folder / "trainval.txt", "test": lists["test"]}
    if not lists["train"].is_file():
        raise ValueError(f"VOC: {folder} holds neither train.txt nor trainval.txt")
    splits: dict[str, str] = {}
    for split, path in lists.items():
        names = read_lines(path) if path.is_file() else []
        for name in filter(None, map(str.strip, names)):
            inside(folder, name, str(path))
            if name in splits:
                raise ValueError(f"{path}: {name} is listed twice, the first time in {splits[name]}.txt")
            splits[name] = split
    return splits


def _parse(path: Path) -> ElementTree.Element:
    """An annotation -> its tree. Python's parser fetches nothing, and its expat (2.4.1 on) stops entity bombs."""
    try:
        return ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise BadExample(f"{path}: not found") from None
    except (ElementTree.ParseError, LookupError, OSError, ValueError) as error:
        raise BadExample(f"{path}: not an XML annotation: {error}") from error


def _box(item: ElementTree.Element, classes: Sequence[str], path: Path) -> tuple[float, ...] | None:
    """An <object> -> its box and class, None for a click without a drag."""
    name = _text(item, "name", path)
    corners = [_text(item, f"bndbox/{side}", path) for side in SIDES]
    try:
        x0, y0, x1, y1 = map(float, corners)
    except ValueError:
        x0, y0, x1, y1 = (np.nan,) * 4
    if not (x0 <= x1 and y0 <= y1 and np.isfinite([x0, y0, x1, y1]).all()):
        raise BadExample(f"{path}: the box {', '.join(corners)} of a {name} must be xmin, ymin, xmax, ymax, in numbers")
    return (x0 - 1, y0 - 1, x1, y1, classes.index(name)) if x0 < x1 and y0 < y1 else None


def _text(item: ElementTree.Element, tag: str, path: Path) -> str:
    text = item.findtext(tag, "").strip()
    if not text:
        raise BadExample(f"{path}: an <object> without <{tag.replace('/', '><')}>")
    return text
