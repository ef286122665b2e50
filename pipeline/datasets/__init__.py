"""Readers of public data set layouts: one file a layout, found by name in this dict."""

from pipeline.datasets.base import SPLITS, BadExample, Column, Example, Row, Source, SourceSettings
from pipeline.datasets.celeba import CelebA
from pipeline.datasets.fashion import Fashion
from pipeline.datasets.folders import Folders
from pipeline.datasets.gtsrb import GTSRB
from pipeline.datasets.manifest import Manifest
from pipeline.datasets.nyuv2 import NYUv2
from pipeline.datasets.omniglot import Omniglot
from pipeline.datasets.scenes import Scenes
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
    "manifest": Manifest,
}

__all__ = ["DATASETS", "SPLITS", "BadExample", "Column", "Example", "Row", "Source", "SourceSettings"]
