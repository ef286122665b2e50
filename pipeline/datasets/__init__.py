"""Readers of public data set layouts: one file a layout, found by name in this dict."""

from collections.abc import Callable
from pathlib import Path

from pipeline.datasets._custom import code_of, own_reader
from pipeline.datasets._items import Items
from pipeline.datasets.ade20k import ADE20K
from pipeline.datasets.base import SPLITS, BadExample, Column, Example, Row, Source, SourceSettings
from pipeline.datasets.cars import Cars
from pipeline.datasets.celeba import CelebA
from pipeline.datasets.cityscapes import Cityscapes
from pipeline.datasets.coco import COCO
from pipeline.datasets.cub import CUB
from pipeline.datasets.domainnet import DomainNet
from pipeline.datasets.fashion import Fashion
from pipeline.datasets.flowers import Flowers
from pipeline.datasets.folders import Folders
from pipeline.datasets.gtsrb import GTSRB
from pipeline.datasets.imagenet import ImageNet
from pipeline.datasets.inaturalist import INaturalist
from pipeline.datasets.manifest import Manifest
from pipeline.datasets.nyuv2 import NYUv2
from pipeline.datasets.omniglot import Omniglot
from pipeline.datasets.pets import Pets
from pipeline.datasets.places365 import Places365
from pipeline.datasets.scenes import Scenes
from pipeline.datasets.taskonomy import Taskonomy
from pipeline.datasets.visual_decathlon import VisualDecathlon
from pipeline.datasets.voc import VOC

DATASETS: dict[str, type[Source]] = {
    "scenes": Scenes,
    "fashion": Fashion,
    "nyuv2": NYUv2,
    "celeba": CelebA,
    "folders": Folders,
    "gtsrb": GTSRB,
    "omniglot": Omniglot,
    "voc": VOC,
    "coco": COCO,
    "ade20k": ADE20K,
    "cityscapes": Cityscapes,
    "taskonomy": Taskonomy,
    "visual_decathlon": VisualDecathlon,
    "domainnet": DomainNet,
    "imagenet": ImageNet,
    "places365": Places365,
    "inaturalist": INaturalist,
    "pets": Pets,
    "cub": CUB,
    "cars": Cars,
    "flowers": Flowers,
    "manifest": Manifest,
}


def reader_of(reader: str, key: str = "reader") -> Callable[[SourceSettings], Source]:
    """A name of `DATASETS`, or `module:function` -> what opens its source. ValueError begins with `key`."""
    return own_reader(reader, key) if ":" in reader else DATASETS[reader]


def detect(root: Path) -> tuple[str, ...]:
    """A folder -> the readers whose marks all stand in it, or in one of its subfolders, as an archive leaves them."""
    folders = [root, *(entry for entry in root.iterdir() if entry.is_dir())] if root.is_dir() else []
    return tuple(
        name
        for name, source in DATASETS.items()
        if source.marks and any(all(any(folder.glob(mark)) for mark in source.marks) for folder in folders)
    )


__all__ = [
    "DATASETS",
    "SPLITS",
    "BadExample",
    "Column",
    "Example",
    "Items",
    "Row",
    "Source",
    "SourceSettings",
    "code_of",
    "detect",
    "reader_of",
]
