"""train.norm_images: what it refuses before training, and that it is part of a job."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from models.batch_norm import GhostBatchNorm2d
from pipeline.artifacts import read_manifests
from pipeline.config import Train
from pipeline.loop import _feed
from pipeline.step import take_step
from pipeline.training_state import TrainingState, begin
from tests.pipeline.cases import DECODING, make_job, prepare, same, settings, site
from tests.pipeline.number_source import Numbers, rows

pytestmark = pytest.mark.filterwarnings(DECODING)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("numbers")
    prepare(folder, Numbers(rows(40)), settings({"images": None}))
    return folder


def started(numbers: Path, tasks: tuple[str, ...] = ("kind", "mask"), world: int = 1, **train: Any) -> TrainingState:
    where = site(numbers, numbers, world=world)
    return begin(make_job(read_manifests(numbers), tasks, batch=8, **train), where)


def test_a_batch_must_hold_whole_groups(numbers: Path) -> None:
    with pytest.raises(ValueError, match=r"^train.norm_images 3 does not divide a batch of 8: .* datasets.tiny.batch"):
        started(numbers, norm_images=3)


def test_workers_must_hold_whole_groups(numbers: Path) -> None:
    with pytest.raises(ValueError, match=r"^train.norm_images 4: the 4 workers of machine.yaml .* the 2 groups"):
        started(numbers, norm_images=4, world=4)


@pytest.mark.parametrize("images", [0, -2, 1.5, "all"])
def test_it_is_a_number_of_images(images: Any) -> None:
    with pytest.raises(ValidationError, match="norm_images"):
        Train(norm_images=images)


def test_it_is_part_of_the_job(numbers: Path) -> None:
    manifests = read_manifests(numbers)
    keys = {make_job(manifests, ("kind",), norm_images=images).key for images in (None, 2, 4)}
    assert len(keys) == 3


def test_a_network_without_batch_statistics_does_not_mind(numbers: Path) -> None:
    job = make_job(read_manifests(numbers), ("kind",), batch=8, norm_images=3)
    swin = replace(job.model.backbone, name="swin_nano_patch4_window4")
    run = begin(replace(job, model=replace(job.model, backbone=swin)), site(numbers, numbers))
    assert not any(isinstance(module, GhostBatchNorm2d) for module in run.network.modules())


def test_a_group_of_the_whole_batch_changes_nothing(numbers: Path) -> None:
    torch.set_num_threads(1)
    states = []
    for images in (None, 8, 2):
        job = make_job(read_manifests(numbers), ("kind", "mask"), batch=8, norm_images=images, ema=0.5)
        where = site(numbers, numbers)
        run, feed = begin(job, where), _feed(job, where)
        for run.step in range(3):
            take_step(job, where, run, [feed[run.step]])
        states.append({**run.network.state_dict(), **run.evaluated.state_dict(prefix="averaged.")})
    assert same(states[0], states[1])
    assert not same(states[0], states[2])
