"""Two ranks train the network that one trains: same steps, normalisation, noise and metrics; three do, too."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from models.branch_tree import BranchTree
from pipeline import training_state
from pipeline.artifacts import read_manifests
from pipeline.checkpoints import kept_weights
from pipeline.jobs import TrainJob
from pipeline.loop import _feed, conclude, train
from pipeline.step import Diverged, check_finite, take_step
from pipeline.storage import JobFolder
from pipeline.training_state import Site, begin, build
from tests.models import noisy_swin
from tests.pipeline.cases import DECODING, cut_short, make_job, prepare, same, saved, settings, site
from tests.pipeline.number_source import Numbers, rows

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(DECODING)]
CASES: dict[str, dict[str, Any]] = {
    "shared": {"clip": 0.1, "momentum": 0.9},
    "tree": {"groups": ((0, 0, 0), (0, 0, 1), (0, 1, 2), (0, 1, 2)), "augment": {"flip": 0.5, "crop": 0.6}},
    "averaged": {"groups": BranchTree.split(3, 4).groups, "ema": 0.7, "clip": 0.1, "loss_weights": "uncertainty"},
}
STEPS: dict[str, Any] = {"optimiser": "sgd", "lr": 0.02, "epochs": 1, "batch": 6}  # larger steps: larger rounding
TASKS = ("kind", "field", "mask")
FINE: dict[str, Any] = {"backbone": "test_resnet_dilated"}  # maps of 4 x 4: of one pixel, two images say too little
SWIN: dict[str, Any] = {"backbone": noisy_swin.NAME}
EXPERTS: dict[str, Any] = {"strategy": "moe", "settings": (("experts", 4), ("router_width", 2), ("top_k", 2))}
JOINT: dict[str, Any] = {"strategy": "taps", "settings": (("joint", True),)}
# What a network is, how it is trained, and what else its job holds; any of it may depend on how rows are shared out.
NETWORKS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "whole batch": ({}, {}, {}),
    "groups of two": (FINE, {"norm_images": 2, "ema": 0.7}, {}),
    "dropped paths, deeplab": (SWIN | {"head": "deeplab"}, {}, {}),
    "draws by rank": (SWIN | {"head": "deeplab"}, {"batch": 3}, {"draws": 6}),
    "joint": (JOINT, {}, {"lam": 0.1}),
    "joint, groups of three": (FINE | JOINT, {"norm_images": 3, "batch": 18}, {}),
    "experts": (SWIN | EXPERTS, {}, {"lam": 0.1}),
}
OPTIMISERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimiser": "sgd", "lr": 0.02, "momentum": 0.9},
    "adamw": {"optimiser": "adamw", "lr": 0.001},
}
BOTH = ("whole batch", "groups of two", "dropped paths, deeplab")
STEPPED = [*(f"{name}, sgd" for name in NETWORKS), *(f"{name}, adamw" for name in (*BOTH, "experts"))]


def jobs(prepared: Path) -> dict[str, TrainJob]:
    return {name: make_job(read_manifests(prepared), TASKS, **STEPS, **case) for name, case in CASES.items()}


def stepped(name: str, prepared: Path) -> TrainJob:
    """A job of NETWORKS; its batches are shared out evenly by two and by three."""
    network, optimiser = name.rsplit(", ", 1)
    model, more, job = NETWORKS[network]
    steps: dict[str, Any] = {"epochs": 6, "batch": 12} | OPTIMISERS[optimiser] | more
    plain = make_job(read_manifests(prepared), TASKS, **steps)
    model = dict(model)
    backbone = replace(plain.model.backbone, name=model.pop("backbone", plain.model.backbone.name))
    head = model.pop("head", "")
    tasks = tuple(replace(task, head="" if task.name == "kind" else head) for task in plain.model.tasks)
    if model:
        model["groups"] = ()
    return replace(plain, model=replace(plain.model, backbone=backbone, tasks=tasks, **model), **job)


def weights(job: TrainJob, where: Site) -> dict[str, Tensor]:
    """What is evaluated and kept after six steps, in double precision.

    In single precision rounding turns a ReLU on or off now and then, and statistics of eight pixels amplify it.
    """
    with mock.patch.object(training_state, "build", lambda job: build(job).double()):
        run, feed = begin(job, where), _feed(job, where)
    for run.step in range(6):
        take_step(job, where, run, list(feed.loader(run.step, run.step + 1, workers=0, pin=False)))
    return run.evaluated.state_dict()


def _rank(rank: int, folder: str, prepared: str) -> None:
    torch.set_num_threads(1)
    if rank < 2:
        _meet(rank, 2, folder)
        _train(site(Path(prepared), Path(folder), rank=rank, world=2), folder)
        dist.destroy_process_group()
    _meet(rank, 3, folder)
    _take_steps(site(Path(prepared), Path(folder), rank=rank, world=3), folder)
    dist.destroy_process_group()


def _meet(rank: int, world: int, folder: str) -> None:
    wait = timedelta(seconds=300)  # instead of half an hour, where a rank waits for ever
    meeting = f"file://{folder}/meet{world}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world, timeout=wait)


def _take_steps(where: Site, folder: str) -> None:
    for name in STEPPED:
        torch.save(weights(stepped(name, where.prepared), where), f"{folder}/{name}.{where.rank}of{where.world}")


def _train(where: Site, folder: str) -> None:
    """What two ranks do."""
    _take_steps(where, folder)
    rank, prepared = where.rank, where.prepared
    for job in jobs(Path(prepared)).values():
        records = list(train(job, where))
        torch.save([record.val for record in records], f"{folder}/{job.key}.{rank}")
        if rank == 0:
            conclude(job, where)
        cut_short(job, replace(where, storage=f"{folder}/two then one"), 2)
        list(train(job, replace(where, storage=f"{folder}/one then two")))
    _leave_together(jobs(Path(prepared))["shared"], where)


def _leave_together(job: TrainJob, where: Site) -> None:
    """A loss that is not finite on one rank stops them all."""
    run = begin(job, where)
    run.sums[0] = float("nan") if where.rank == 1 else 1.0
    with pytest.raises(Diverged):
        check_finite(job, where, run)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 training images: three steps of six; some labels of every column are missing."""
    folder = tmp_path_factory.mktemp("numbers")
    listed = [
        replace(row, split=("train", "val", "test")[(int(row.id) >= 18) + (int(row.id) >= 25)]) for row in rows(32)
    ]
    prepare(folder, Numbers(listed), settings({"images": None}))
    return folder


@pytest.fixture(scope="module")
def two_ranks(numbers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two ranks trained, and three after them."""
    folder = tmp_path_factory.mktemp("two")
    for name, job in jobs(numbers).items():
        there = site(numbers, folder / "one then two")
        cut_short(job, there, 2)
        if name == "tree":  # damaged for both: all ranks go on from the one before
            newest = there.folder(job).names("checkpoints")[-1]
            there.folder(job).write(f"checkpoints/{newest}", b"lost")
    torch.multiprocessing.spawn(_rank, args=(str(folder), str(numbers)), nprocs=3)
    return folder


def kept(job: TrainJob, storage: Path) -> Mapping[str, Tensor]:
    found = kept_weights(JobFolder(str(storage), job.key))
    assert found is not None
    return found


@pytest.mark.parametrize("case", list(CASES))
def test_two_ranks_are_one(case: str, numbers: Path, two_ranks: Path, tmp_path: Path) -> None:
    job = jobs(numbers)[case]
    records = list(train(job, site(numbers, tmp_path)))
    one, two = kept(job, tmp_path), kept(job, two_ranks)
    assert one.keys() == two.keys(), "a checkpoint does not know how many ranks there were"
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")
    first, second = (torch.load(f"{two_ranks}/{job.key}.{rank}") for rank in range(2))
    assert first == second
    for name, value in records[-1].val.items():
        assert first[-1][name] == pytest.approx(value, rel=1e-3)
    single = conclude(job, site(numbers, tmp_path))
    double = JobFolder(str(two_ranks), job.key).read_result()
    assert double is not None
    assert double["test"] == pytest.approx(single["test"], rel=1e-3)
    history = [JobFolder(str(folder), job.key).read_history()[-1] for folder in (tmp_path, two_ranks)]
    assert history[1]["losses"] == pytest.approx(history[0]["losses"], rel=1e-4)
    assert history[1]["weights"] == pytest.approx(history[0]["weights"], rel=1e-4)


@pytest.mark.parametrize("name", STEPPED)
def test_any_number_of_ranks_takes_the_steps_of_one(name: str, numbers: Path, two_ranks: Path, tmp_path: Path) -> None:
    one = weights(stepped(name, numbers), site(numbers, tmp_path))
    for world in (2, 3):
        first, *others = (torch.load(f"{two_ranks}/{name}.{rank}of{world}") for rank in range(world))
        assert all(same(first, other) for other in others), "all ranks hold one network"
        assert first.keys() == one.keys()
        for key, value in one.items():
            assert torch.allclose(first[key], value, rtol=1e-5, atol=1e-5), f"{world} ranks: {key}"


@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("order", ["one then two", "two then one"])
def test_inside_an_epoch_another_number_of_ranks_goes_on(
    case: str, order: str, numbers: Path, two_ranks: Path, tmp_path: Path
) -> None:
    """The epoch's losses too are those of all its steps, whoever took them."""
    job, found = jobs(numbers)[case], two_ranks / order
    assert saved(job, found)["step"] == (3 if order == "one then two" else 2)
    (record,) = train(job, site(numbers, found))
    (whole,) = train(job, site(numbers, tmp_path))
    assert record.losses == pytest.approx(whole.losses, rel=1e-5)
    assert record.weights == pytest.approx(whole.weights, rel=1e-5)
    one, other = kept(job, tmp_path), kept(job, found)
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")
