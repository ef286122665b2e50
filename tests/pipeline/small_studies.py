"""Presets brought down to fixture data: what they train stays of the same kind, and takes about a second."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.config import Config, Dataset, load
from pipeline.machine import Machine
from pipeline.presets import PRESETS

NAMES = sorted(path.stem for path in PRESETS.glob("*.yaml"))
SIDE_BY_SIDE = ("domainnet", "folders", "visual_decathlon")  # readers whose fixtures hold several data sets
# The same family where the preset's own network takes too long; the others are run as they are.
SMALL = {
    "resnet34.tv_in1k": "test_resnet",
    "resnet50.tv_in1k": "test_resnet",
    "resnet50.tv_in1k_dilated": "test_resnet_dilated",
    "swin_mini_patch4_window4": "swin_nano_patch4_window4",
    "swin_tiny_patch4_window7_224": "swin_nano_patch4_window4",
}
WIDTH = 16  # of heads
LEAST = 0.4  # of the rows, for val and for test where they are drawn


def planted(config: Config, folder: Path) -> Machine:
    """Make the fixture tree of every reader that a study has; gives the machine on which its data sets lie there."""
    roots: dict[str, str] = {}
    made: dict[str, Path] = {}
    for name, data in config.datasets.items():
        if data.reader == "scenes":
            continue
        if data.reader not in made:
            (folder / data.reader).mkdir(parents=True)
            made[data.reader] = import_module(f"tests.pipeline.layouts.{data.reader}").plant(folder / data.reader)
        root = made[data.reader]
        beside = root.parent / Path(data.root or "").name
        roots[name] = str(beside if data.reader in SIDE_BY_SIDE and data.root and beside.is_dir() else root)
    return Machine(roots=roots, prepare_workers=1, threads=1)


def brought_down(name: str, **changes: Any) -> Config:
    """A preset with small pictures, heads, batches and networks, and one epoch of everything."""
    config = load(PRESETS / f"{name}.yaml")
    backbone = config.backbone.model_copy(
        update={"name": SMALL.get(config.backbone.name, config.backbone.name), "pretrained": False}
    )
    train = config.train.model_copy(update={"epochs": 1, "batch": 2, "warmup_epochs": 0.0})
    sections: Mapping[str, Any] = {
        "datasets": {key: _small(data) for key, data in config.datasets.items()},
        "tasks": {key: task.model_copy(update={"head_width": WIDTH}) for key, task in config.tasks.items()},
        "backbone": backbone,
        "train": train,
        "trees": config.trees.model_copy(update={"budgets": ["2x"]}),
        "taps": config.taps.model_copy(update={"epochs": 1}),
        "moe": config.moe.model_copy(update={"epochs": 1, "ranks": min(config.moe.ranks, 2)}),
        "adapt": config.adapt.model_copy(update={"epochs": 1}),
    }
    return config.model_copy(update={**sections, **changes})


def _small(data: Dataset) -> Dataset:
    height, width = data.size
    return data.model_copy(
        update={
            "size": (32, 64) if width > height else (32, 32),
            "images": 40 if data.reader == "scenes" else None,
            "val": max(LEAST, data.val),
            "test": max(LEAST, data.test),
            "batch": data.batch and min(data.batch, 2),
            "min_class_count": 0,
        }
    )
