"""What finished jobs left in storage -> files of a stage; what stages left -> the values that the next ones ask for."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from scipy.stats import permutation_test, rankdata

from models.accounting import delta_mtl
from models.tasks import TASKS
from pipeline.artifacts import TRIALS, read_table, write_table
from pipeline.config import Machine
from pipeline.jobs import TrainJob
from pipeline.storage import JobFolder

LEAST_TREES = 4  # fewer say nothing about an order


def copy_result(job: TrainJob, machine: Machine, folder: Path) -> None:
    """Copy a job's bundle into a stage's folder, with its history as history.parquet."""
    JobFolder(machine.storage, job.key).download("bundle", folder)
    write_table(folder / "history.parquet", trials(job, machine), TRIALS)


def trials(job: TrainJob, machine: Machine) -> Iterator[dict[str, Any]]:
    """Map a job to tidy rows: one metric of one task after one epoch, then the kept weights' on test."""
    storage = JobFolder(machine.storage, job.key)
    metric = {spec.name: TASKS[spec.kind].metric_name for spec in job.model.tasks}
    base = {"job": job.name, "name": re.sub(r"-s\d+$", "", job.name), "key": job.key, "seed": job.seed}
    for record in storage.read_history():
        at = {"epoch": record["epoch"], **base}
        for name, value in record["losses"].items():
            yield {"split": "train", "task": name, "metric": "loss", "value": value, **at}
        for name, value in record["val"].items():
            yield {"split": "val", "task": name, "metric": metric[name], "value": value, **at}
    result = storage.read_result() or {"test": {}, "epoch": 0}
    for name, value in result["test"].items():
        yield {"split": "test", "task": name, "metric": metric[name], "value": value, "epoch": result["epoch"], **base}


def read_affinity(folder: Path, tasks: Sequence[str]) -> list[list[list[float]]]:
    """Map the affinity stage's table to affinities [D][T][T] in the order of `tasks`."""
    rows = {(row["location"], row["task_a"], row["task_b"]): row for row in read_table(folder / "affinity.parquet")}
    locations = sorted({location for location, _, _ in rows})
    return [[[rows[location, a, b]["value"] for b in tasks] for a in tasks] for location in locations]


def delta_of(result: Mapping[str, Any], single: Mapping[str, Any], split: str = "test") -> float:
    """Map a result and the single-task networks' metrics to Δ_MTL on a split."""
    baseline = {name: row[split] for name, row in single.items()}
    return delta_mtl(result[split], baseline, {name: row["higher_is_better"] for name, row in single.items()})


def cost_against_delta(trees: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Map trained trees to Spearman's correlation between their cost and their mean Δ_MTL; None for fewer than four.

    Negative: trees of lower cost did better. The p-value is that of 9,999 random pairings, on either side.
    """
    if len(trees) < LEAST_TREES:
        return dict.fromkeys(("spearman", "p_value", "spearman_val"))
    costs = [tree["cost"] for tree in trees]
    test, val = ([mean(tree[key]) for tree in trees] for key in ("delta_mtl", "delta_mtl_val"))
    outcome = permutation_test((costs,), partial(_spearman, test), permutation_type="pairings", n_resamples=9999, rng=0)
    return {"spearman": _spearman(test, costs), "p_value": float(outcome.pvalue), "spearman_val": _spearman(val, costs)}


def _spearman(first: Sequence[float], second: Sequence[float]) -> float:
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])
