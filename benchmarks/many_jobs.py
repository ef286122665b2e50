"""Forty networks on a small cluster, and one after another.    python -m benchmarks.many_jobs    (about 8 minutes)

The cluster is Ray on this machine with two slots of one core. It stands when the clock starts, as in `make repro`,
which starts one for all stages. Its share of ideal is how full the slots were kept with what a job counts as its
training: epochs, their validation and checkpoints. All else of a job is overhead: processes and their imports, Tune,
the test split, the bundle, and a slot that stands empty at the end. None of that grows with the training, so the share
of longer jobs follows. One after another, some of the same jobs run in this process, before and after. Jobs on
neighbouring cores are slower than one alone: the second line has that in it, and it is the machine's.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.lines import Goal, Line, figure, note, show
from models.branch_tree import BranchTree
from pipeline.artifacts import write_manifests
from pipeline.config import load
from pipeline.jobs import TrainJob, model_spec, task_specs, train_job
from pipeline.machine import Machine
from pipeline.preparing import declare, open_source, prepare_dataset
from pipeline.runner import kept_cluster, run_jobs
from pipeline.storage import JobFolder

JOBS, ALONE, SLOTS = 40, 3, 2
IMAGES, EPOCHS = 600, 6
MINUTES = (1, 10, 60)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """Some jobs: their seconds on the wall in all, and the result of each by its key."""

    seconds: float
    results: Mapping[str, Mapping[str, Any]]

    @property
    def trained(self) -> float:
        """The seconds that the jobs say they trained for."""
        return sum(result["seconds"] for result in self.results.values())


def lines(number: int = JOBS) -> Iterator[Line]:
    with TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared"
        jobs = _jobs(prepared, number)
        one = Machine(storage=f"{folder}/one", gpu=False, threads=1)
        several = Machine(storage=f"{folder}/several", gpu=False, threads=1, jobs=SLOTS)
        _run(jobs[:1], one.model_copy(update={"storage": f"{folder}/warm"}), prepared)
        before = _run(jobs[:ALONE], one, prepared)
        with kept_cluster(several):
            together = _run(jobs, several, prepared)
        after = _run(jobs[-ALONE:], one, prepared)
    _assert_equal({**before.results, **after.results}, together.results)
    yield from _compared(together, [ran.seconds / ALONE for ran in (before, after)])


def _jobs(prepared: Path, number: int) -> list[TrainJob]:
    """Networks for all tasks of the default study, which differ in their seeds alone."""
    config = load()
    scenes = config.datasets["scenes"].model_copy(update={"images": IMAGES})
    settings = config.train.model_copy(update={"epochs": EPOCHS})
    config = config.model_copy(update={"datasets": {"scenes": scenes}, "train": settings})
    declared = declare("scenes", config, source := open_source("scenes", config, Machine()))
    manifest = prepare_dataset(declared, source, config, Machine(), prepared, lambda _: None)
    write_manifests(prepared, [manifest])
    manifests = {"scenes": manifest}
    tasks = task_specs(config, manifests)
    model = model_spec(config, manifests, tasks, BranchTree.shared(len(tasks), config.backbone.locations).groups)
    reference = {task.name: 1.0 for task in tasks}
    return [
        train_job(config, manifests, model, name=f"seed {seed}", seed=seed, reference=reference)
        for seed in range(number)
    ]


def _run(jobs: Sequence[TrainJob], machine: Machine, prepared: Path) -> Ran:
    note(f"{len(jobs)} jobs, {machine.jobs} at a time")
    began = time.perf_counter()
    failed = run_jobs(jobs, machine, prepared, lambda *_: None, None)
    seconds = time.perf_counter() - began
    assert not failed, failed
    results = {job.key: JobFolder(machine.storage, job.key).read_result() for job in jobs}
    return Ran(seconds=seconds, results={key: result for key, result in results.items() if result})


def _assert_equal(alone: Mapping[str, Mapping[str, Any]], together: Mapping[str, Mapping[str, Any]]) -> None:
    for key, result in alone.items():
        for task, value in result["test"].items():
            assert isclose(value, together[key]["test"][task], rel_tol=1e-6), (key, task)


def _compared(together: Ran, alone: Sequence[float]) -> Iterator[Line]:
    """`alone` are the seconds of one job in a process that goes from one to the next, in several tries."""
    number, slots = len(together.results), SLOTS * together.seconds
    each = together.trained / number
    what = f"{number} jobs of {each:.1f} s on {SLOTS} slots"
    overhead = (slots - together.trained) / number
    yield figure(11, what, "their training / slots", [together.trained / slots], "of ideal", Goal(least=0.9))
    gain = [seconds * number / together.seconds for seconds in alone]
    yield figure(11, what, f"one after another, extrapolated from {2 * ALONE}", gain, f"× as fast, of {SLOTS}")
    yield figure(11, "what a job takes of a slot beside its training", "–", [overhead], "s")
    for minutes in MINUTES:
        share = 60 * minutes / (60 * minutes + overhead)
        yield figure(11, f"jobs of {minutes} min, computed from that", "their training / slots", [share], "of ideal")


if __name__ == "__main__":
    show(lines())
