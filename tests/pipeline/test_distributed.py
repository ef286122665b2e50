"""Two ranks train the network that one trains: same steps, same normalisation, same metrics."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from models.branch_tree import BranchTree
from pipeline.artifacts import read_manifests
from pipeline.jobs import TrainJob
from pipeline.loop import conclude, train
from pipeline.step import Diverged, check_finite
from pipeline.storage import JobFolder
from pipeline.training_state import Site, begin
from tests.pipeline.cases import DECODING, make_job, prepare, settings, site
from tests.pipeline.number_source import Numbers, rows

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(DECODING)]
CASES: dict[str, dict[str, Any]] = {
    "shared": {"clip": 0.1, "momentum": 0.9},
    "tree": {"groups": ((0, 0, 0), (0, 0, 1), (0, 1, 2), (0, 1, 2)), "augment": {"flip": 0.5, "crop": 0.6}},
    "averaged": {"groups": BranchTree.split(3, 4).groups, "ema": 0.7, "clip": 0.1, "loss_weights": "uncertainty"},
}
STEPS: dict[str, Any] = {"optimiser": "sgd", "lr": 0.05, "epochs": 1, "batch": 6}
TASKS = ("kind", "field", "mask")


def jobs(prepared: Path) -> dict[str, TrainJob]:
    return {name: make_job(read_manifests(prepared), TASKS, **STEPS, **case) for name, case in CASES.items()}


def _rank(rank: int, world: int, folder: str, prepared: str) -> None:
    torch.set_num_threads(1)
    wait = timedelta(seconds=60)  # instead of half an hour, where a rank waits for ever
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world, timeout=wait)
    where = site(Path(prepared), Path(folder), rank=rank, world=world)
    for job in jobs(Path(prepared)).values():
        records = list(train(job, where))
        torch.save([record.val for record in records], f"{folder}/{job.key}.{rank}")
        if rank == 0:
            conclude(job, where)
    _leave_together(jobs(Path(prepared))["shared"], where)
    dist.destroy_process_group()


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
    folder = tmp_path_factory.mktemp("two")
    torch.multiprocessing.spawn(_rank, args=(2, str(folder), str(numbers)), nprocs=2)
    return folder


def state(job: TrainJob, storage: Path, name: str) -> Mapping[str, Tensor]:
    found = JobFolder(str(storage), job.key).read_state(name)
    assert found is not None
    return found


@pytest.mark.parametrize("case", list(CASES))
def test_two_ranks_are_one(case: str, numbers: Path, two_ranks: Path, tmp_path: Path) -> None:
    job = jobs(numbers)[case]
    records = list(train(job, site(numbers, tmp_path)))
    one, two = state(job, tmp_path, "best.pt"), state(job, two_ranks, "best.pt")
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


def test_a_checkpoint_of_two_ranks_goes_on_with_one(numbers: Path, two_ranks: Path) -> None:
    job = jobs(numbers)["tree"]
    assert len(list(train(job, site(numbers, two_ranks)))) == 1
