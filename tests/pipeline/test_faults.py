"""What clusters do to jobs, done to real ones: they end as jobs that nobody disturbed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.checkpoints import kept_weights
from pipeline.config import ROOT
from pipeline.fitting import fit
from pipeline.jobs import TrainJob
from pipeline.machine import Machine
from pipeline.preparing import open_source
from pipeline.storage import JobFolder
from tests.pipeline.cases import DECODING, prepare, same, settings
from tests.pipeline.fault_study import machine, study
from tests.ray_nodes import Nodes, ray_nodes, why_not

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(DECODING)]
JOBS, EPOCHS = 2, 5
TITLE = "fault_study"
WORKER = "RayTrainWorker"


@dataclass
class Driver:
    """A driver at work, and what it has said so far."""

    command: list[str]
    environment: dict[str, str]
    said: list[str] = field(default_factory=list)

    def __enter__(self) -> "Driver":
        self.process = subprocess.Popen(
            self.command, cwd=ROOT, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def until(self, line: str) -> None:
        """Read what it says up to a line that begins so."""
        assert self.process.stdout is not None
        for text in self.process.stdout:
            self.said.append(text.rstrip())
            if text.startswith(line):
                return
        raise AssertionError(f"no line {line!r} in:\n" + "\n".join(self.said))

    def end(self) -> int:
        assert self.process.stdout is not None
        self.said += [text.rstrip() for text in self.process.stdout]
        return self.process.wait()


def driver(prepared: Path, storage: Path, jobs: int = JOBS, nodes: Nodes | None = None, **more: Any) -> Driver:
    fault = ["--raise-once", str(more.pop("raise_once"))] if "raise_once" in more else []
    settings = {"storage": str(storage), "jobs": more.pop("at_once", 1), **more}
    sizes = [str(prepared), str(jobs), str(EPOCHS), json.dumps(settings)]
    command = [sys.executable, "-m", "tests.pipeline.fault_study", *sizes, *fault]
    if nodes is None:
        return Driver(command, {**os.environ, "OMP_NUM_THREADS": "1"})
    return Driver(nodes.inside(0, command), nodes.environment)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Epochs of 28 steps, so that there is a checkpoint inside each of them."""
    folder, config = tmp_path_factory.mktemp("scenes"), settings({"images": 280, "val": 0.1, "test": 0.1})
    prepare(folder, open_source("tiny", config, Machine()), config)
    return folder


@pytest.fixture(scope="module")
def undisturbed(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of the same jobs, trained one after another in this process without trouble."""
    storage = tmp_path_factory.mktemp("undisturbed")
    outcomes = fit(study(scenes, JOBS, EPOCHS), machine(storage=str(storage)), scenes, lambda *_: None)
    assert all(outcome.error is None for outcome in outcomes)
    return storage


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Two machines of one CPU each: a job of two workers needs both."""
    if reason := why_not():
        pytest.skip(reason)
    with ray_nodes(tmp_path_factory.mktemp("ray"), nodes=2, cpus=1) as started:
        yield started


def assert_equal(storage: Path, undisturbed: Path, scenes: Path, jobs: int = JOBS) -> None:
    """Weights, history and result, to the bit; only the seconds differ."""
    for job in study(scenes, jobs, EPOCHS):
        (mine, my), (its, whole) = (both(folder, job) for folder in (storage, undisturbed))
        assert my == whole
        assert same(mine, its)


def assert_close(storage: Path, undisturbed: Path, scenes: Path, jobs: int = JOBS) -> None:
    """The same up to the order of sums, which two workers and one do not share, and an image that it tips over."""
    for job in study(scenes, jobs, EPOCHS):
        (mine, my), (its, whole) = (both(folder, job) for folder in (storage, undisturbed))
        off = {
            name: (mine[name].double() - value.double()).norm() / value.double().norm() for name, value in its.items()
        }
        assert max(off.values()) < 1e-2, max(off, key=lambda name: off[name])
        for record, other in zip(my["history"], whole["history"], strict=True):
            assert record["losses"] == pytest.approx(other["losses"], rel=1e-4)
        assert my["test"]["scene"] == pytest.approx(whole["test"]["scene"], abs=1.5 / 28)


def both(storage: Path, job: TrainJob) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """A job's kept weights, and what it came to."""
    folder = JobFolder(str(storage), job.key)
    result, weights = folder.read_result(), kept_weights(folder)
    assert result is not None
    assert weights is not None
    history = [{**record, "seconds": 0} for record in folder.read_history()]
    return weights, {**result, "seconds": 0, "history": history}


def seconds(storage: Path, scenes: Path) -> list[float]:
    """How long each finished epoch of the first job took: a mark by which it is known again."""
    job, *_ = study(scenes, 1, EPOCHS)
    return [record["seconds"] for record in JobFolder(str(storage), job.key).read_history()]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_was_stopped_goes_on(end: int, scenes: Path, undisturbed: Path, tmp_path: Path) -> None:
    with driver(scenes, tmp_path) as first:
        first.until("job 0 epoch 3")
        first.process.send_signal(end)
        assert first.end()
    done = seconds(tmp_path, scenes)
    with driver(scenes, tmp_path) as second:
        assert second.end() == 0
    assert second.said[-1] == "job 1 done"
    assert seconds(tmp_path, scenes)[: len(done)] == done, "no finished epoch is trained again"
    assert len(done) >= 3
    assert_equal(tmp_path, undisturbed, scenes)


@pytest.mark.faults
def test_workers_that_raise_or_die_are_replaced(nodes: Nodes, scenes: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Two workers on two machines: one raises, then one is killed, then one is stopped for good."""
    more = {"nodes": nodes, "address": nodes.cluster, "workers": 2, "max_failures": 3, "stuck_seconds": 20}
    with driver(scenes, tmp_path, 1, raise_once=tmp_path / "raised", **more) as running:
        running.until("job 0 epoch 3")
        assert (tmp_path / "raised").exists()
        placed = [nodes.processes(node, WORKER) for node in range(2)]
        assert [len(found) for found in placed] == [1, 1], "one on each machine"
        os.kill(placed[1][0], signal.SIGKILL)
        running.until("job 0 epoch 4")
        os.kill(nodes.processes(0, WORKER)[0], signal.SIGSTOP)
        assert running.end() == 0
    assert running.said[-1] == "job 0 done"
    assert [line for line in running.said if "epoch" in line] == [f"job 0 epoch {epoch + 1}" for epoch in range(EPOCHS)]
    assert_close(tmp_path, undisturbed, scenes, 1)


@pytest.mark.faults
def test_a_lost_machine_is_done_without(nodes: Nodes, scenes: Path, undisturbed: Path, tmp_path: Path) -> None:
    with driver(scenes, tmp_path, 1, nodes=nodes, address=nodes.cluster, workers=[1, 2]) as running:
        running.until("job 0 epoch 2")
        assert nodes.processes(1, WORKER)
        nodes.kill(1)
        assert running.end() == 0
    nodes.start(1)
    assert running.said[-1] == "job 0 done"
    assert_close(tmp_path, undisturbed, scenes, 1)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("end", "how"), [(signal.SIGKILL, {"at_once": 2}), (signal.SIGINT, {"at_once": 2}), (signal.SIGINT, {"workers": 2})]
)
def test_a_driver_of_a_cluster_that_was_stopped_goes_on(
    end: int, how: dict[str, int], nodes: Nodes, scenes: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Jobs at once, or one after another in groups: Ctrl-C ends them all, and is no success."""
    more = {"nodes": nodes, "address": nodes.cluster, **how}
    with driver(scenes, tmp_path, **more) as first:
        first.until("job 0 epoch 2")
        for pid in nodes.processes(0, TITLE):
            os.kill(pid, end)
        assert first.end()
    done = seconds(tmp_path, scenes)
    with driver(scenes, tmp_path, **more) as second:
        assert second.end() == 0
    assert second.said[-1] == "job 1 done"
    assert seconds(tmp_path, scenes)[: len(done)] == done, "no finished epoch is trained again"
    (assert_close if "workers" in how else assert_equal)(tmp_path, undisturbed, scenes)


@pytest.mark.faults
def test_many_trainers_share_few_cpus(nodes: Nodes, scenes: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Six jobs of two workers, all begun at once on two CPUs, wait for one another, and none for ever."""
    more = {"nodes": nodes, "address": nodes.cluster, "workers": 2, "autoscaling": True}
    with driver(scenes, tmp_path, 6, at_once=6, **more) as running:
        assert running.end() == 0
    assert sum(line.endswith(" done") for line in running.said) == 6
    assert_close(tmp_path, undisturbed, scenes)


@pytest.mark.alone
def test_what_the_cluster_cannot_hold_is_said(nodes: Nodes, scenes: Path, tmp_path: Path) -> None:
    with driver(scenes, tmp_path, 1, nodes=nodes, address=nodes.cluster, workers=3) as running:
        assert running.end() == 1
    assert "a job takes 3 of 1 CPU each, the cluster (2 machines) has room for 2" in running.said[-1]
