"""ADE20K's SceneParse150 (Zhou et al. 2017) in its native layout: 150 classes per pixel, and kinds of scene.

`images/{training,validation}/<name>.jpg` and `annotations/{training,validation}/<name>.png` (0 = other, 1 to 150);
where there, `objectInfo150.txt` names the classes and `sceneCategories.txt` says each image's scene. Test labels are
withheld, so the official validation is our `test`, and val is drawn from train.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from models.spec import IGNORE, Column
from pipeline.datasets._listed import image_names, read_lines
from pipeline.datasets._masks import read_mask
from pipeline.datasets.base import Example, Row, Source
from pipeline.datasets.files import content_groups, draw, find_root, read_rgb

IMAGES, MASKS, NAMES, SCENES = "images", "annotations", "objectInfo150.txt", "sceneCategories.txt"
PARTS = {"training": "train", "validation": "test"}
# fmt: off
CLASSES_150 = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet", "sidewalk",
    "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water", "painting", "sofa",
    "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp",
    "bathtub", "railing", "cushion", "base", "box", "column", "signboard", "chest of drawers", "counter", "sand",
    "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path", "stairs", "runway", "case", "pool table",
    "pillow", "screen door", "stairway", "river", "bridge", "bookcase", "blind", "coffee table", "toilet", "flower",
    "book", "hill", "bench", "countertop", "stove", "palm", "kitchen island", "computer", "swivel chair", "boat", "bar",
    "arcade machine", "hovel", "bus", "towel", "light", "truck", "tower", "chandelier", "awning", "streetlight",
    "booth", "television", "airplane", "dirt track", "apparel", "pole", "land", "bannister", "escalator", "ottoman",
    "bottle", "buffet", "poster", "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything",
    "swimming pool", "stool", "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball",
    "food", "step", "tank", "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen",
    "blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen",
    "plate", "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag",
)
# fmt: on
TO_150 = {0: IGNORE, **{number: number - 1 for number in range(1, 151)}}


class ADE20K(Source):
    """The layout -> `segmentation`, 255 = any other class, and `scene` where its list stands; classes by first name."""

    licence: ClassVar[str] = "images non-commercial research and education only; annotations BSD 3-Clause"
    marks: ClassVar[tuple[str, ...]] = tuple(f"{kind}/{part}" for kind in (IMAGES, MASKS) for part in PARTS)

    @cached_property
    def _root(self) -> Path:
        return find_root(self.settings.root, self.marks, "ADE20K")

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        """The first of each class's names in the table, which has a head and then a line a class, split by tabs."""
        path = self._root / NAMES
        if not path.is_file():
            return CLASSES_150
        found: list[str] = []
        for number, line in enumerate(read_lines(path)[1:], start=1):
            index, _, names = line.partition("\t")
            if index.strip() != str(number):
                raise ValueError(f"{path} line {number + 1}: {line!r}, but class {number} and tabs are expected")
            found.append(names.rpartition("\t")[2].split(",")[0].strip())
        if len(found) != len(CLASSES_150):
            raise ValueError(f"{path}: {len(found)} classes, but {len(CLASSES_150)} are expected; is it cut off?")
        return tuple(found)

    @cached_property
    def _scenes(self) -> Mapping[str, str]:
        """Each image's scene, by its name; empty where there is no list."""
        path = self._root / SCENES
        found: dict[str, str] = {}
        for number, line in enumerate(read_lines(path) if path.is_file() else (), start=1):
            name, _, scene = line.strip().partition(" ")
            if not scene or name in found:
                raise ValueError(
                    f"{path} line {number}: {line!r}, but an image not named before and its scene are expected"
                )
            found[name] = scene
        return found

    def columns(self) -> Mapping[str, Column]:
        columns = {"segmentation": Column(layout="mask", classes=self._classes)}
        if self._scenes:
            columns["scene"] = Column(layout="class", classes=tuple(sorted(set(self._scenes.values()))))
        return columns

    def rows(self) -> Sequence[Row]:
        listed = [(part, file) for part in PARTS for file in image_names(self._root / IMAGES / part)]
        kept = draw(listed, self.settings)
        files = [f"{IMAGES}/{part}/{file}" for part, file in kept]
        groups = content_groups([self._root / file for file in files])
        return [
            Row(id=Path(file).stem, origin=origin, group=group, split=PARTS[part])
            for (part, file), origin, group in zip(kept, files, groups, strict=True)
        ]

    def load(self, row: Row) -> Example:
        image, part = read_rgb(self._root / row.origin), row.origin.split("/")[1]
        labels: dict[str, object] = {
            "segmentation": read_mask(self._root / MASKS / part / f"{row.id}.png", TO_150, image)
        }
        if self._scenes:
            labels["scene"] = self._scenes.get(row.id)
        return Example(image=image, labels=labels)
