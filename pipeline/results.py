"""What finished jobs left in storage -> files of a stage; what stages left -> the values that the next ones ask for."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from models.accounting import delta_mtl
from models.tasks import TASKS
from pipeline.about import write_about
from pipeline.artifacts import TRIALS, DatasetManifest, read_table, write_table
from pipeline.jobs import TrainJob
from pipeline.machine import Machine
from pipeline.storage import JobFolder

LEAST_TREES = 4  # fewer say nothing about an order
PAIRINGS = 9999


def copy_result(
    job: TrainJob,
    machine: Machine,
    folder: Path,
    manifests: Mapping[str, DatasetManifest],
    single: Mapping[str, Mapping[str, Any]],
) -> None:
    """Copy a job's bundle into a stage's folder, with its history as history.parquet and about.json.

    `single` is what `pretrain` says of each task's network, or nothing where the job is one of those.
    """
    JobFolder(machine.storage, job.key).download("bundle", folder)
    write_table(folder / "history.parquet", trials(job, machine), TRIALS)
    tasks = [task for task in job.model.tasks if task.name in job.trained]
    write_about(folder, tasks, dict.fromkeys(job.trained, job.key), machine, manifests, single)


def trials(job: TrainJob, machine: Machine) -> Iterator[dict[str, Any]]:
    """Map a job to tidy rows: one metric of one task after one epoch, then all measures of the kept weights on test."""
    storage = JobFolder(machine.storage, job.key)
    metric = {spec.name: TASKS[spec.kind].metric_name for spec in job.model.tasks}
    base = {"job": job.name, "name": re.sub(r"-s\d+$", "", job.name), "key": job.key, "seed": job.seed}
    for record in storage.read_history():
        at = {"epoch": record["epoch"], **base}
        for name, value in record["losses"].items():
            yield {"split": "train", "task": name, "metric": "loss", "value": value, **at}
        for name, value in record["val"].items():
            yield {"split": "val", "task": name, "metric": metric[name], "value": value, **at}
    result = storage.read_result() or {"test": {}, "further": {}, "epoch": 0}
    at = {"split": "test", "epoch": result["epoch"], **base}
    for name, value in result["test"].items():
        yield {"task": name, "metric": metric[name], "value": value, **at}
    for name, values in result["further"].items():
        for measure, value in values.items():
            yield {"task": name, "metric": measure, "value": value, **at}


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

    Negative: trees of lower cost did better. Those are also the larger ones, so `same_size` compares trees of equal
    size alone: ranks less the mean rank of their size. The p-values are of 9,999 random pairings, on either side.
    """
    if len(trees) < LEAST_TREES:
        return dict.fromkeys(("spearman", "p_value", "spearman_val", "same_size", "same_size_p"))
    from scipy.stats import rankdata  # loads slowly, and few stages have trees to compare

    costs = rankdata([tree["cost"] for tree in trees])
    test, val = (rankdata([mean(tree[key]) for tree in trees]) for key in ("delta_mtl", "delta_mtl_val"))
    everywhere, sizes = np.zeros(len(trees)), np.array([tree["params"] for tree in trees])
    spearman, p_value = _correlation(costs, test, everywhere)
    same_size, same_size_p = _correlation(costs, test, sizes)
    return {"spearman": spearman, "p_value": p_value, "spearman_val": _correlation(costs, val, everywhere)[0]} | {
        "same_size": same_size,
        "same_size_p": same_size_p,
    }


def _correlation(one: np.ndarray, other: np.ndarray, groups: np.ndarray) -> tuple[float | None, float | None]:
    """Correlation of two rows after taking off each group's mean, and its p by shuffling inside the groups.

    None where fewer than four values have company, or nothing varies.
    """
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    if sum(len(rows) for rows in members if len(rows) > 1) < LEAST_TREES:
        return None, None
    first, second = one.astype(float), other.astype(float)
    for rows in members:
        first[rows] -= first[rows].mean()
        second[rows] -= second[rows].mean()
    scale = float(np.linalg.norm(first) * np.linalg.norm(second))
    if not scale:
        return None, None
    found, generator, as_far = float(first @ second) / scale, np.random.default_rng(0), 1
    for _ in range(PAIRINGS):
        shuffled = second.copy()
        for rows in members:
            shuffled[rows] = second[generator.permutation(rows)]
        as_far += abs(float(first @ shuffled)) / scale >= abs(found) - 1e-12
    return found, as_far / (PAIRINGS + 1)
