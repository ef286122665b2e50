"""A tiny study: settings, data sets and jobs that train in about a second."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import loop
from pipeline.artifacts import DatasetManifest, write_manifests
from pipeline.checkpoints import find
from pipeline.config import Config
from pipeline.datasets import Source
from pipeline.jobs import TrainJob, model_spec, task_specs, train_job
from pipeline.machine import Machine
from pipeline.preparing import declare, prepare_dataset
from pipeline.storage import JobFolder
from pipeline.training_state import Site
from tests.pipeline.number_source import SIZE

KINDS = {
    "scene": "classification",
    "depth": "depth",
    "segmentation": "segmentation",
    "keypoints": "keypoints",
    "kind": "classification",
    "field": "depth",
    "mask": "segmentation",  # columns of `Numbers`
}
# torchvision points to TorchCodec, which wants FFmpeg; its own decoders are still there.
DECODING = "ignore:The image decoding and encoding capabilities:DeprecationWarning"
# Nothing couples tasks that share no weights.
QUIET: dict[str, Any] = {
    "optimiser": "sgd",
    "lr": 0.05,
    "weight_decay": 0.0,
    "clip": 0.0,
    "epochs": 1,
}


def settings(
    dataset: Mapping[str, Any] | None = None, tasks: Sequence[str] = ("scene", "depth"), **sections: Any
) -> Config:
    """params.yaml of the tiny study, as a value."""
    raw = {
        "experiment": "tiny",
        "seed": 0,
        "prepare": {},
        "affinity": {},
        "branched": {},
        "taps": {},
        "moe": {},
        "adapt": {},
        "report": {},
        "datasets": {
            "tiny": {"reader": "scenes", "images": 60, "size": SIZE, "val": 0.2, "test": 0.2, **(dataset or {})}
        },
        "tasks": {name: {"kind": KINDS[name], "dataset": "tiny", "head_width": 8} for name in tasks},
        "backbone": {"name": "test_resnet", "locations": 4},
        "trees": {"budgets": ["2x"]},
        **sections,
    }
    raw["train"] = {"epochs": 2, "batch": 8, "lr": 0.01} | sections.get("train", {})
    return Config.model_validate(raw)


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
    loss_weights: str = "fixed",
    start: Mapping[str, str] | None = None,
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
    more: dict[str, Any] = {"reference": reference, "start": start, "loss_weights": loss_weights}
    return train_job(config, manifests, spec, name="-".join(tasks), seed=seed, **more)


def site(prepared: Path, storage: Path, **changes: Any) -> Site:
    return Site(**{"prepared": prepared, "storage": str(storage), **changes})


def cut_short(job: TrainJob, where: Site, steps: int) -> None:
    """Train for some steps, with a checkpoint after each but an epoch's last, which leaves its own; then break off."""
    taken, calls = loop.take_step, 0

    def failing(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > steps:
            raise Gone
        taken(*arguments)

    with pytest.MonkeyPatch.context() as patch, suppress(Gone):
        patch.setattr(loop, "take_step", failing)
        patch.setattr(loop, "CHECK_EVERY", 1)
        list(loop.train(job, replace(where, checkpoint_seconds=0.0)))


class Gone(Exception):
    """The machine is."""


def saved(job: TrainJob, storage: Path | str) -> Mapping[str, Any]:
    """What a job's newest checkpoint holds."""
    found, damaged = find(JobFolder(str(storage), job.key))
    assert found is not None
    assert not damaged
    return found.state


def same(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> bool:
    """Equal to the bit."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
