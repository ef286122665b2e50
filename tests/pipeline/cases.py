"""A tiny study: settings, data sets and jobs that train in about a second."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.spec import Column
from pipeline.artifacts import DatasetManifest, write_manifests
from pipeline.config import Config, Machine
from pipeline.datasets import BadExample, Example, Row, Source, SourceSettings
from pipeline.jobs import TrainJob, model_spec, task_specs, train_job
from pipeline.loop import Site
from pipeline.preparing import declare, prepare_dataset

SIZE = (32, 32)
KINDS = {"scene": "classification", "depth": "depth", "segmentation": "segmentation", "keypoints": "keypoints"}
QUIET = {"optimiser": "sgd", "lr": 0.05, "weight_decay": 0.0, "clip": 0.0, "epochs": 1}  # nothing couples tasks
COLUMNS = {
    "kind": Column(layout="class", classes=("a", "b", "c", "d")),
    "flags": Column(layout="flags", classes=("x", "y", "z")),
    "mask": Column(layout="mask", classes=("none", "one", "two")),
    "field": Column(layout="field", scale=0.01, unit="m"),
    "ids": Column(layout="instances"),
    "points": Column(layout="points", classes=("p", "q")),
    "boxes": Column(layout="boxes", classes=("r", "s")),
}


class Numbers(Source):
    """Made-up rows with every layout; example i is a function of i. `bad`: rows that can't be read, `out`: label 9."""

    licence = "none"

    def __init__(
        self, rows: Sequence[Row], *, bad: Sequence[str] = (), out: Sequence[str] = (), size: tuple[int, int] = SIZE
    ) -> None:
        super().__init__(SourceSettings(root=None, images=None, seed=0, size=size))
        self.listed, self.bad, self.out = list(rows), set(bad), set(out)

    def columns(self) -> Mapping[str, Column]:
        return COLUMNS

    def rows(self) -> Sequence[Row]:
        return self.listed

    def load(self, row: Row) -> Example:
        if row.id in self.bad:
            raise BadExample(f"images/{row.id}.png: not an image")
        labels = labels_of(int(row.id), self.settings.size)
        if row.id in self.out:
            labels["kind"] = 9
        image = np.full((*self.settings.size, 3), int(row.id) % 256, dtype=np.uint8)
        return Example(image=image, labels=labels)


def labels_of(index: int, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    """Example `index`'s labels; each column is null in some rows."""
    draw = np.random.default_rng(index)
    points = np.concatenate([draw.uniform(0, size[1], (index % 4, 2)), draw.integers(0, 2, (index % 4, 1))], 1)
    corners = np.sort(draw.uniform(0, size[1], (index % 3, 2, 2)), axis=1).reshape(-1, 4)
    labels = {
        "kind": index % 3 if index % 10 else 3,
        "flags": draw.integers(-1, 2, 3).tolist(),
        "mask": draw.choice([0, 1, 2, 255], size).astype(np.uint8),
        "field": draw.uniform(0, 600, size),
        "ids": draw.integers(0, 256, size).astype(np.uint8),
        "points": points.astype(np.float32),
        "boxes": np.concatenate([corners, draw.integers(0, 2, (index % 3, 1))], 1).astype(np.float32),
    }
    return {name: None if (index + at) % 8 == 7 else value for at, (name, value) in enumerate(labels.items())}


def rows(count: int, **changes: Any) -> list[Row]:
    fields = [{"id": str(i), "origin": f"list.csv row {i + 1}", "group": str(i)} | changes for i in range(count)]
    return [Row(**field) for field in fields]


def settings(
    dataset: Mapping[str, Any] | None = None, tasks: Sequence[str] = ("scene", "depth"), **sections: Any
) -> Config:
    """params.yaml of the tiny study, as a value."""
    raw = {
        "experiment": "tiny",
        "datasets": {"tiny": {"reader": "scenes", "images": 60, "size": SIZE, "val": 0.2, "test": 0.2, **(dataset or {})}},
        "tasks": {name: {"kind": KINDS[name], "dataset": "tiny", "head_width": 8} for name in tasks},
        "backbone": {"name": "test_resnet", "locations": 4},
        "trees": {"budgets": ["2x"]},
        **sections,
    }
    raw["train"] = {"epochs": 2, "batch": 8, "lr": 0.01} | sections.get("train", {})
    return Config.model_validate(raw)


class Threads(ThreadPoolExecutor):
    """In place of a pool of processes where a test is not about them."""

    def __init__(self, workers: int, mp_context: object = None) -> None:  # noqa: ARG002 - a process pool's signature
        super().__init__(workers)


def prepare(
    folder: Path, source: Source, config: Config, *, name: str = "tiny", workers: int = 1
) -> tuple[DatasetManifest, list[str]]:
    """Store a source under a folder, with manifest.json; also give what was said on the way."""
    said: list[str] = []
    machine = Machine(prepare_workers=workers)
    manifest = prepare_dataset(declare(name, config, source), source, config, machine, folder, said.append)
    write_manifests(folder, [manifest])
    return manifest, said


def make_job(
    manifests: Mapping[str, DatasetManifest],
    tasks: Sequence[str] = ("scene", "depth"),
    groups: Sequence[Sequence[int]] | None = None,
    seed: int = 0,
    weights: Sequence[float] = (),
    **train: Any,
) -> TrainJob:
    """A job on the tiny data set; the tree is the fully shared one unless `groups` says otherwise."""
    config = settings(tasks=tasks, train=train)
    raw = config.model_dump()
    for name, weight in zip(tasks, weights, strict=False):
        raw["tasks"][name]["weight"] = weight
    config = Config.model_validate(raw)
    spec = model_spec(config, manifests, task_specs(config, manifests), groups or [[0] * len(tasks)] * 4)
    reference = dict.fromkeys(tasks, 0.5)
    return train_job(config, manifests, spec, name="-".join(tasks), seed=seed, reference=reference)


def site(prepared: Path, storage: Path, **changes: Any) -> Site:
    return Site(**{"prepared": prepared, "storage": str(storage), **changes})


def same(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> bool:
    """Equal to the bit."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
