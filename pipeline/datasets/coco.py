"""COCO (Lin et al. 2014) in its native layout: boxes, the classes an image shows, and classes per pixel.

`annotations/instances_{train,val}<year>.json`, of which val may be absent, the images in `{train,val}<year>` here or in
`images`; where there, `annotations/panoptic_{train,val}<year>.json` (Kirillov et al. 2019) and the folder of PNGs of
that name beside it. Test labels are withheld, so the official val is our `test`, and val is drawn from train.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from models.spec import Column
from pipeline.datasets._boxes import cut_boxes, require_stated_size
from pipeline.datasets._coco_instances import Instances, read_instances
from pipeline.datasets._coco_panoptic import Panoptic, read_panoptic
from pipeline.datasets.base import Example, Row, Source
from pipeline.datasets.files import content_groups, draw, find_root, read_rgb

FOLDER = "annotations"
PANOPTIC = (FOLDER, f"panoptic_segmentation/{FOLDER}")  # COCO's own place, and that of a common small copy
SPLITS = {"train": "train", "test": "val"}  # ours, and COCO's word


class COCO(Source):
    """The layout -> `boxes` and `objects` (which classes occur), and `segmentation` where panoptic files stand.

    Regions of a crowd are no boxes, though their class occurs; boxes without area are left out, public sets hold some;
    the rest is cut off at the image's edges. An image without annotations has no objects; one without a panoptic entry
    is unlabelled there. Images in no JSON are left alone.
    """

    licence: ClassVar[str] = "annotations CC BY 4.0; each image has its own, named in the JSON"
    marks: ClassVar[tuple[str, ...]] = (f"{FOLDER}/instances_*.json",)

    @cached_property
    def _root(self) -> Path:
        return find_root(self.settings.root, (FOLDER,), "COCO")

    @cached_property
    def _instances(self) -> Mapping[str, Instances]:
        """Each split's images with their boxes, the images' folder found."""
        found: dict[str, Instances] = {}
        for split, word in SPLITS.items():
            files = sorted((self._root / FOLDER).glob(f"instances_{word}*.json"))
            if len(files) > 1:
                raise ValueError(f"COCO: {self._root / FOLDER} holds {files[0].name} and {files[1].name}; keep one")
            if files:
                found[split] = read_instances(files[0], self._folder(files[0].stem.removeprefix("instances_")))
        if "train" not in found:
            raise ValueError(f"COCO: {self._root / FOLDER} holds no instances_train<year>.json")
        _require_same_classes(found)
        return found

    @cached_property
    def _panoptic(self) -> Mapping[str, Panoptic]:
        """Each split's panoptic entries, for the splits that have them."""
        found: dict[str, Panoptic] = {}
        for split, part in self._instances.items():
            name = part.path.name.replace("instances", "panoptic")
            if path := next((path for place in PANOPTIC if (path := self._root / place / name).is_file()), None):
                found[split] = read_panoptic(path, part.numbers)
        _require_same_classes(found)
        return found

    @cached_property
    def _place(self) -> Mapping[str, tuple[str, int]]:
        """Each image's split and number there, by its path below the root."""
        return {file: (split, n) for split, part in self._instances.items() for n, file in enumerate(part.files)}

    def columns(self) -> Mapping[str, Column]:
        classes = self._instances["train"].classes
        columns = {"boxes": Column(layout="boxes", classes=classes), "objects": Column(layout="flags", classes=classes)}
        for part in self._panoptic.values():
            columns["segmentation"] = Column(layout="mask", classes=part.classes)
        return columns

    def rows(self) -> Sequence[Row]:
        files = draw(list(self._place), self.settings)
        train = [file for file in files if self._place[file][0] == "train"]
        groups = dict(zip(train, content_groups([self._root / file for file in train]), strict=True))
        return [Row(id=file, origin=file, group=groups.get(file, file), split=self._place[file][0]) for file in files]

    def load(self, row: Row) -> Example:
        split, number = self._place[row.id]
        part, image = self._instances[split], read_rgb(self._root / row.id)
        height, width = part.sizes[number]
        require_stated_size(part.path, width, height, row.id, image)
        present = np.zeros(len(part.classes), np.int8)
        present[part.objects_of(number)] = 1
        labels: dict[str, np.ndarray | None] = {
            "boxes": cut_boxes(part.path, part.boxes_of(number), image),
            "objects": present,
        }
        if self._panoptic:
            panoptic = self._panoptic.get(split)
            labels["segmentation"] = panoptic.mask_of(number, image) if panoptic else None
        return Example(image=image, labels=labels)

    def _folder(self, name: str) -> str:
        """The folder of a split's images, below the root."""
        for folder in (name, f"images/{name}"):
            if (self._root / folder).is_dir():
                return folder
        raise ValueError(f"COCO: {self._root} holds neither {name} nor images/{name}, the images of its JSON")


def _require_same_classes(parts: Mapping[str, Instances] | Mapping[str, Panoptic]) -> None:
    for part in parts.values():
        if part.classes != (first := next(iter(parts.values()))).classes:
            raise ValueError(f"{part.path}: its categories are not those of {first.path}")
