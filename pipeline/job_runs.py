"""A training job as a run of tracking: its name, its tags and parameters, its values after an epoch and at its end.

A run has at most 25 metrics: MLflow draws a chart for each, and its page stops answering at some hundreds. So values of
single tasks are shown group by group as long as the groups fit; what is left out stands in tables. A metric's name has
one slash: what stands before the last is a section of that page, and a section of one chart for each task wastes it.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from typing import Any

from models.branch_tree import BranchTree
from models.tasks import TASKS
from pipeline.jobs import TrainJob
from pipeline.storage import JobFolder

Record = Mapping[str, Any]
MOST = 25  # metrics of a run
OF_ALL = 10  # of them are not of single tasks, at most: see `epoch_values`, `end_values` and what the stages add


def run_name(job: TrainJob, tags: Mapping[str, str]) -> str:
    """Map a job to <method>-<backbone>-<task, budget, λ, learning rate>-s<seed>, of those what its tags name."""
    named = job_tags(job, tags)
    parts = [named["method"], job.model.backbone.name]
    parts += [named["task"]] if named["task"] != "all" else []
    parts += [named["budget"]] if named.get("budget") and named["method"] == "branched" else []
    parts += [f"{key}{named[key]}" for key in ("lam", "lr") if key in named]
    return "-".join([*parts, f"s{job.seed}"])


def job_tags(job: TrainJob, tags: Mapping[str, str]) -> dict[str, str]:
    """Map a job and what its stage says of it to its tags; `task` is `all` where it trains several."""
    strategy = tags["strategy"]
    method = _shape(job) if strategy == "branched" else strategy
    task = job.trained[0] if len(job.trained) == 1 else "all"
    return {"method": method, **tags, "task": task, "job_key": job.key}


def job_params(job: TrainJob) -> dict[str, Any]:
    """Map a job to what a person would look for when comparing it with another."""
    return {
        "train": job.train.model_dump(),
        "seed": job.seed,
        "backbone": job.model.backbone.name,
        "tasks": ",".join(job.model.task_names),
        "groups": str(job.model.groups),
        "settings": str(dict(job.model.settings)),
        "loss_weights": job.loss_weights,
        "lam": job.lam,
        "draws": job.draws,
        "start": ",".join(name for name, _ in job.start) or "backbone",
    }


def epoch_values(job: TrainJob, record: Record) -> dict[str, float]:
    """Map an epoch's record to the metrics of the job's run."""
    shown, metrics = shown_groups(job), metric_names(job)
    weights = record["weights"]
    values: dict[str, float] = {"train/loss": sum(weights[t] * loss for t, loss in record["losses"].items())}
    values |= {"val/score": record["score"], "lr": record["lr"]}
    if "val" in shown:
        values |= {f"val/{task}_{metrics[task]}": value for task, value in record["val"].items()}
    if "train" in shown:
        values |= {f"train/{task}_loss": value for task, value in record["losses"].items()}
    if "weight" in shown:
        values |= {f"train/{task}_weight": value for task, value in weights.items()}
    return values


def end_values(job: TrainJob, result: Record) -> dict[str, float]:
    """Map a job's result to its run's metrics: validation of the kept epoch, test, and what the network costs."""
    shown, metrics = shown_groups(job), metric_names(job)
    values = {"best/score": result["score"], "params_m": result["params"] / 1e6, "gmacs": result["flops"] / 2e9}
    values |= {"cost/seconds": result["seconds"]}
    if "best" in shown:
        values |= {f"best/{task}_{metrics[task]}": value for task, value in result["val"].items()}
    if "final" in shown:
        values |= {f"final/{task}_{metrics[task]}": value for task, value in result["test"].items()}
    if "further" in shown:
        values |= {
            f"final/{task}_{measure}": value
            for task, found in result["further"].items()
            for measure, value in found.items()
            if value is not None
        }
    return values


def shown_groups(job: TrainJob) -> set[str]:
    """Map a job to the groups of values, one of each task, that its run shows as metrics; the most telling go first."""
    kinds = {spec.name: TASKS[spec.kind](spec) for spec in job.model.tasks}
    count = len(job.trained)
    sizes = {"final": count, "val": count, "train": count, "best": count}
    sizes |= {"weight": count} if job.loss_weights != "fixed" else {}
    sizes |= {"further": sum(len(kinds[task].further) for task in job.trained)}
    room, shown = MOST - OF_ALL, set[str]()
    for group, size in sizes.items():
        if size <= room:
            shown.add(group)
            room -= size
    return shown


def tables(job: TrainJob, storage: JobFolder, result: Record) -> dict[str, str]:
    """Map a finished job to files of tables, where its metrics do not show everything; none where they do."""
    if {"final", "val", "train", "best", "further"} <= shown_groups(job):
        return {}
    metrics = metric_names(job)
    rows = [(task, metrics[task], result["val"][task], value) for task, value in result["test"].items()]
    rows += [(task, name, "", value) for task, row in result["further"].items() for name, value in row.items()]
    epochs = [
        (one["epoch"], task, one["losses"].get(task, ""), one["weights"][task], metrics[task], value)
        for one in storage.read_history()
        for task, value in one["val"].items()
    ]
    return {
        "tables/tasks.csv": _csv(("task", "metric", "validation", "test"), rows),
        "tables/history.csv": _csv(("epoch", "task", "loss", "weight", "metric", "validation"), epochs),
    }


def metric_names(job: TrainJob) -> dict[str, str]:
    """Map a job's tasks to their primary metrics."""
    return {spec.name: TASKS[spec.kind].metric_name for spec in job.model.tasks}


def _shape(job: TrainJob) -> str:
    """The two trees that every study has by their names."""
    groups, tasks = job.model.groups, len(job.model.tasks)
    ends = {
        BranchTree.shared(tasks, len(groups)).groups: "shared",
        BranchTree.split(tasks, len(groups)).groups: "split",
    }
    return ends.get(groups, "branched")


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
