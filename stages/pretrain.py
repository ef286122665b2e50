"""One single-task network per task.    python -m stages.pretrain    (about 20 s a task on the default data)

Leaves artifacts/pretrain/<task>/ (a bundle, history.parquet) and metrics.json: validation and test metric of each task,
beside those of the best constant prediction, and on test its kind's further measures.
"""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from models.tasks import TASKS
from pipeline.artifacts import ARTIFACTS, read_manifests, write_json, writing
from pipeline.evaluate import trivial_metrics
from pipeline.jobs import TrainJob, model_spec, task_specs, train_job
from pipeline.result_lines import metric_cells
from pipeline.results import copy_result
from pipeline.training_state import splits_of
from stages.session import session, start
from stages.training import train_jobs


def main() -> None:
    with session("pretrain") as at:
        manifests = read_manifests()
        alone = ((0,),) * at.config.backbone.locations
        jobs = [
            train_job(
                at.config,
                manifests,
                model_spec(at.config, manifests, [task], alone),
                name=task.name,
                seed=at.config.seed,
            )
            for task in task_specs(at.config, manifests)
        ]
        tags = {job.name: {"strategy": "single", "task": job.name} for job in jobs}
        results = train_jobs(at, jobs, tags, more=lambda _job, _result: {})
        metrics = {job.name: _row(job, results[job.name]) for job in jobs}
        _refuse_zeros(metrics)
        values = {task: row["test"] for task, row in metrics.items()}
        at.result(metric_cells(values, {task: row["metric"] for task, row in metrics.items()}))
        with writing("pretrain") as folder:
            for job in jobs:
                copy_result(job, at.machine, folder / job.name, manifests, {})
            write_json(folder / "metrics.json", metrics)


def _row(job: TrainJob, result: dict) -> dict:
    """A task's metric on both splits, with the best constant prediction's on the same images."""
    (spec,) = job.model.tasks
    task, prepared = TASKS[spec.kind](spec), Path(ARTIFACTS / "prepare")
    train, val, test = (splits_of(job, prepared, split) for split in ("train", "val", "test"))
    return {
        "metric": task.metric_name,
        "higher_is_better": task.higher_is_better,
        "val": result["val"][job.name],
        "test": result["test"][job.name],
        "further": result["further"][job.name],
        "trivial_val": trivial_metrics({job.name: task}, train, val)[job.name],
        "trivial_test": trivial_metrics({job.name: task}, train, test)[job.name],
        "params": result["params"],
        "flops": result["flops"],
        "epoch": result["epoch"],
        "seconds": result["seconds"],
        "job": job.key,
    }


def _refuse_zeros(metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """Say now what every later stage would fail on: a gain over nothing, or over no number, has no meaning."""
    wrong = [
        f"{task}: {row['metric']} is {row[split]:g} on {split}"
        for task, row in metrics.items()
        for split in ("val", "test")
        if not isfinite(row[split]) or row[split] == 0
    ]
    if wrong:
        raise ValueError(
            "what single-task networks reach is what Δ_MTL is measured against. 0: train longer (train.epochs) or with"
            " another train.lr; nan: the split has no label. Mend it, or leave the task out:\n" + "\n".join(wrong)
        )


if __name__ == "__main__":
    start(main, logged=True)
