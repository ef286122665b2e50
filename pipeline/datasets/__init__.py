"""Readers of public data set layouts: one file a layout, found by name in this dict."""

from pathlib import Path

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


def detect(root: Path) -> tuple[str, ...]:
    """A folder -> the readers whose marks all stand in it, or in one of its subfolders, as an archive leaves them."""
    folders = [root, *(entry for entry in root.iterdir() if entry.is_dir())] if root.is_dir() else []
    return tuple(
        name
        for name, source in DATASETS.items()
        if source.marks and any(all((folder / mark).exists() for mark in source.marks) for folder in folders)
    )


__all__ = ["DATASETS", "SPLITS", "BadExample", "Column", "Example", "Row", "Source", "SourceSettings", "detect"]
