"""Boxes in the layout of Pascal VOC (Everingham et al. 2010): the column `boxes`, of the classes that occur.

`Annotations/<name>.xml`, `JPEGImages/<name>.jpg` and `ImageSets/Main/{train,val,trainval,test}.txt`, a name a line, of
which one of train and trainval is needed. What `prepare` has no list for, it draws. Images in no list are left alone.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

import numpy as np

from models.spec import Column
from pipeline.datasets.base import BadExample, Example, Row, Source
from pipeline.datasets.files import content_group, draw, find_root, read_rgb
from pipeline.datasets.folders import images_in

ANNOTATIONS, IMAGES, LISTS = "Annotations", "JPEGImages", "ImageSets/Main"
SIDES = ("xmin", "ymin", "xmax", "ymax")


class VOC(Source):
    """The layout -> one column of boxes; objects marked as difficult, truncated or occluded are boxes like others.

    Corners count pixels from 1, the last one within: a box spans xmin - 1 to xmax. What lies beyond the image is cut
    off. A box from a pixel to the same row or column is a click without a drag, and left out; public sets hold some.
    """

    licence: ClassVar[str] = "that of the images in the folders"
    marks: ClassVar[tuple[str, ...]] = (ANNOTATIONS, IMAGES, LISTS)

    @cached_property
    def _root(self) -> Path:
        return find_root(self.settings.root, self.marks, "VOC")

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

    def columns(self) -> Mapping[str, Column]:
        return {"boxes": Column(layout="boxes", classes=self._classes)}

    def rows(self) -> Sequence[Row]:
        files = {name: self._images.get(name, f"{IMAGES}/{name}.jpg") for name in self._splits}
        return [
            Row(id=name, origin=files[name], group=content_group(self._root / files[name]), split=self._splits[name])
            for name in draw(list(files), self.settings)
        ]

    @cached_property
    def _splits(self) -> Mapping[str, str]:
        """Each listed name's split; trainval is the training list where there is no other."""
        lists = {split: self._root / LISTS / f"{split}.txt" for split in ("train", "val", "test")}
        if not lists["train"].is_file():
            lists = {"train": self._root / LISTS / "trainval.txt", "test": lists["test"]}
        if not lists["train"].is_file():
            raise ValueError(f"VOC: {self._root / LISTS} holds neither train.txt nor trainval.txt")
        splits: dict[str, str] = {}
        for split, path in lists.items():
            names = path.read_text(encoding="utf-8-sig").splitlines() if path.is_file() else []
            for name in filter(None, map(str.strip, names)):
                if name in splits:
                    raise ValueError(f"{path}: {name} is listed twice, the first time in {splits[name]}.txt")
                splits[name] = split
        return splits

    def load(self, row: Row) -> Example:
        image, path = read_rgb(self._root / row.origin), self._root / ANNOTATIONS / f"{row.id}.xml"
        found = _parse(path)
        height, width = image.shape[:2]
        stated = tuple(found.findtext(f"size/{side}", "").strip() for side in ("width", "height"))
        if stated not in (("", ""), ("0", "0"), (str(width), str(height))):
            raise BadExample(f"{path}: made for {'x'.join(stated)} pixels, but {row.origin} has {width}x{height}")
        boxes = [_box(item, self._classes, path) for item in found.iter("object")]
        kept = np.array([box for box in boxes if box is not None], dtype=np.float32).reshape(-1, 5)
        inside = kept.clip(0, [width, height, width, height, len(self._classes)])
        if len(outside := kept[(inside[:, :2] >= inside[:, 2:4]).any(1)]):
            raise BadExample(f"{path}: the box that ends at {outside[0, 2]:g}, {outside[0, 3]:g} is outside the image")
        return Example(image=image, labels={"boxes": inside})


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
