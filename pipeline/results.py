"""What finished jobs left in storage -> files of a stage."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.tasks import TASKS
from pipeline.artifacts import TRIALS, write_table
from pipeline.config import Machine
from pipeline.jobs import TrainJob
from pipeline.storage import JobFolder


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
