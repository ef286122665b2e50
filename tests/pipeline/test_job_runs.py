"""A job's run has a name that people can read, at most 25 metrics, and the rest in tables."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from models.spec import TaskSpec
from models.tasks import TASKS
from pipeline.artifacts import DatasetManifest
from pipeline.datasets.scenes import COLUMNS
from pipeline.job_runs import MOST, end_values, epoch_values, job_tags, run_name, shown_groups, tables
from pipeline.jobs import TrainJob
from pipeline.storage import JobFolder
from tests.pipeline.cases import make_job

MANIFEST = DatasetManifest(
    name="tiny",
    counts={"train": 8},
    size=(32, 32),
    columns=COLUMNS,
    mean=(0.5, 0.5, 0.5),
    std=(0.2, 0.2, 0.2),
    fingerprint="0",
    licence="none",
)
KINDS = [kind for kind in TASKS if any(column.layout == TASKS[kind].layout for column in COLUMNS.values())]
# What stages add to their jobs' values: `more` in stages/.
ADDED = {
    "single": [],
    "branched": ["final/delta_mtl", "tree/cost"],
    "taps": ["final/delta_mtl", "taps/added_params_pct", "taps/active_pct"],
    "moe": ["final/delta_mtl", "moe/mutual_information"],
}


def job_of(count: int, loss_weights: str = "fixed") -> TrainJob:
    """A job with tasks of every kind in turn."""
    job = make_job({"tiny": MANIFEST}, ["scene"])
    tasks = tuple(_task(number, KINDS[number % len(KINDS)]) for number in range(count))
    reference = tuple((task.name, 0.5) for task in tasks)
    model = replace(job.model, tasks=tasks, groups=((0,) * count,) * 4)
    return replace(job, model=model, reference=reference, loss_weights=loss_weights)


def _task(number: int, kind: str) -> TaskSpec:
    name = kind if kind in COLUMNS else next(key for key, one in COLUMNS.items() if one.layout == TASKS[kind].layout)
    return TaskSpec(name=f"task {number}", kind=kind, dataset="tiny", column_name=name, column=COLUMNS[name])


def history_of(job: TrainJob, epochs: int = 3) -> list[dict[str, Any]]:
    values = {task: 0.1 * number for number, task in enumerate(job.trained)}
    weights = dict.fromkeys(job.trained, 2.0)
    common = {"losses": values, "val": values, "weights": weights, "score": 1.5, "lr": 0.01}
    return [{"epoch": epoch + 1, **common} for epoch in range(epochs)]


def result_of(job: TrainJob) -> dict[str, Any]:
    values = dict.fromkeys(job.trained, 0.5)
    kinds = {spec.name: TASKS[spec.kind](spec) for spec in job.model.tasks}
    further = {task: {one.name: 0.25 for one in kinds[task].further} for task in job.trained}
    cost = {"params": 2_000_000, "flops": 6_000_000_000, "seconds": 4.0}
    return {"val": values, "test": values, "further": further, "score": 1.0, **cost}


def keys_of(job: TrainJob) -> set[str]:
    return {*epoch_values(job, history_of(job)[0]), *end_values(job, result_of(job))}


@pytest.mark.parametrize("loss_weights", ["fixed", "uncertainty"])
@pytest.mark.parametrize("strategy", ADDED)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 15, 16, 40])
def test_a_run_has_at_most_25_metrics(count: int, strategy: str, loss_weights: str) -> None:
    keys = keys_of(job_of(count, loss_weights)) | set(ADDED[strategy])
    assert len(keys) <= MOST == 25
    assert all(key.count("/") <= 1 for key in keys)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_one_task_shows_all_its_measures(kind: str) -> None:
    job = job_of(1)
    job = replace(job, model=replace(job.model, tasks=(_task(0, kind),)))
    task = TASKS[kind](job.model.tasks[0])
    metric = task.metric_name
    own = {"train/task 0_loss", f"val/task 0_{metric}", f"best/task 0_{metric}"}
    own |= {f"final/task 0_{one.name}" for one in task.measures}
    common = {"train/loss", "val/score", "best/score", "lr", "params_m", "gmacs", "cost/seconds"}
    assert keys_of(job) == own | common
    assert tables(job, JobFolder("nowhere", "key"), result_of(job)) == {}


def test_groups_of_tasks_go_the_least_telling_first() -> None:
    shown = [shown_groups(job_of(count)) for count in (3, 5, 7, 15, 16)]
    assert shown[0] >= {"final", "val", "train", "best"}
    assert shown[1:] == [{"final", "val", "train"}, {"final", "val"}, {"final"}, set()]


def test_what_40_tasks_leave_out_stands_in_tables(tmp_path: Path) -> None:
    job = job_of(40)
    folder, history, result = JobFolder(str(tmp_path), job.key), history_of(job), result_of(job)
    folder.write_history(history)
    found = {file: list(csv.DictReader(StringIO(text))) for file, text in tables(job, folder, result).items()}
    epochs, tasks = found["tables/history.csv"], found["tables/tasks.csv"]
    assert len(epochs) == 3 * 40
    assert {(int(row["epoch"]), row["task"]): float(row["validation"]) for row in epochs} == {
        (record["epoch"], task): value for record in history for task, value in record["val"].items()
    }
    measures = {(task, name): value for task, row in result["further"].items() for name, value in row.items()}
    assert {(row["task"], row["metric"]): float(row["test"]) for row in tasks if not row["validation"]} == measures
    assert len(tasks) == 40 + len(measures)


def test_the_training_loss_is_the_weighted_sum() -> None:
    job = job_of(3)
    assert epoch_values(job, history_of(job)[0])["train/loss"] == pytest.approx(2 * (0.0 + 0.1 + 0.2))


BRANCHED = ((0, 0),) * 2 + ((0, 1),) * 2


@pytest.mark.parametrize(
    ("tasks", "groups", "tags", "name", "method"),
    [
        (["scene"], None, {"strategy": "single"}, "single-test_resnet-scene-s3", "single"),
        (["scene", "depth"], None, {"strategy": "branched", "budget": "shared"}, "shared-test_resnet-s3", "shared"),
        (["scene", "depth"], ((0, 1),) * 4, {"strategy": "branched", "budget": "2x"}, "split-test_resnet-s3", "split"),
        (
            ["scene", "depth"],
            BRANCHED,
            {"strategy": "branched", "budget": "2x"},
            "branched-test_resnet-2x-s3",
            "branched",
        ),
        (
            ["depth"],
            None,
            {"strategy": "taps", "method": "taps", "lam": "0.5", "lr": "0.01"},
            "taps-test_resnet-depth-lam0.5-lr0.01-s3",
            "taps",
        ),
        (
            ["depth"],
            None,
            {"strategy": "taps", "method": "lora", "task": "depth", "lr": "0.01"},
            "lora-test_resnet-depth-lr0.01-s3",
            "lora",
        ),
        (
            ["scene", "depth"],
            None,
            {"strategy": "moe", "method": "moe", "lam": "0.1"},
            "moe-test_resnet-lam0.1-s3",
            "moe",
        ),
    ],
)
def test_a_runs_name_says_what_it_is(
    tasks: Sequence[str], groups: Any, tags: Mapping[str, str], name: str, method: str
) -> None:
    job = make_job({"tiny": MANIFEST}, tasks, groups, seed=3)
    assert run_name(job, tags) == name
    found = job_tags(job, tags)
    assert found["method"] == method
    assert found["task"] == (tasks[0] if len(tasks) == 1 else "all")
    assert found["job_key"] == job.key
