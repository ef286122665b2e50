"""What a training stage sends to a run at its end."""

from collections.abc import Sequence

import pytest

from pipeline.artifacts import DatasetManifest
from pipeline.datasets.scenes import COLUMNS
from pipeline.jobs import TrainJob
from stages.training import _values
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
RESULT = {
    "val": {"scene": 0.4, "depth": 0.6},
    "test": {"scene": 0.5, "depth": 0.7},
    "further": {"scene": {"class_accuracy": 0.45, "top5": None}, "depth": {"abs_rel": 0.2, "within_1.25": 0.8}},
}
COST = {"params_m": 2.0, "gmacs": 3.0, "cost/seconds": 4.0}


def values(tasks: Sequence[str]) -> dict[str, float]:
    job: TrainJob = make_job({"tiny": MANIFEST}, tasks)
    result = {split: {name: found[name] for name in tasks} for split, found in RESULT.items()}
    return _values(job, {**result, "params": 2_000_000, "flops": 6_000_000_000, "seconds": 4.0})


@pytest.mark.parametrize(
    ("task", "metric", "further"),
    [("scene", "accuracy", {"class_accuracy": 0.45}), ("depth", "rmse", {"abs_rel": 0.2, "within_1.25": 0.8})],
)
def test_a_run_of_one_task_shows_all_its_measures(task: str, metric: str, further: dict[str, float]) -> None:
    primary = {f"best/{task}/{metric}": RESULT["val"][task], f"final/{task}/{metric}": RESULT["test"][task]}
    rest = {f"final/{task}/{name}": value for name, value in further.items()}
    assert values([task]) == {**primary, **rest, **COST}


def test_a_run_of_several_tasks_shows_the_primary_ones() -> None:
    assert set(values(["scene", "depth"])) == {
        *(f"{what}/{metric}" for what in ("best", "final") for metric in ("scene/accuracy", "depth/rmse")),
        *COST,
    }
