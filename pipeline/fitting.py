"""Training jobs -> results: what stands in storage is not run again, the rest goes to the runner."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan
from pathlib import Path
from typing import Any

from pipeline.following import Log
from pipeline.jobs import TrainJob
from pipeline.machine import Machine
from pipeline.runner import run_jobs
from pipeline.storage import JobFolder


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """What became of a job: its result (see `loop.conclude`), or the message it failed with. `cached`: it was there."""

    job: TrainJob
    result: Mapping[str, Any] | None
    error: str | None = None
    cached: bool = False


def fit(jobs: Sequence[TrainJob], machine: Machine, prepared: Path, log: Log) -> list[JobResult]:
    """Map jobs to results in their order; a failed job leaves the others running. Equal jobs are run once."""
    todo = unfinished(jobs, machine)
    errors = run_jobs(list(todo.values()), machine, prepared, log, None)
    return [_result(job, machine, errors.get(job.key), job.key not in todo) for job in jobs]


def advance(jobs: Sequence[TrainJob], machine: Machine, prepared: Path, log: Log, epoch: int) -> dict[str, float]:
    """Bring jobs to the end of an epoch and no further; map their keys to the best score so far, failed ones left out.

    `fit` goes on from there, to the very weights that it would have reached at once.
    """
    todo = [
        job
        for job in unfinished(jobs, machine).values()
        if len(JobFolder(machine.storage, job.key).read_history()) < epoch
    ]
    failed = run_jobs(todo, machine, prepared, log, epoch)
    histories = {job.key: JobFolder(machine.storage, job.key).read_history() for job in jobs if job.key not in failed}
    scores = {key: [record["score"] for record in records[:epoch]] for key, records in histories.items() if records}
    # An undefined score never wins over a number, wherever it stands.
    return {key: max(found, key=lambda score: -inf if isnan(score) else score) for key, found in scores.items()}


def unfinished(jobs: Sequence[TrainJob], machine: Machine) -> dict[str, TrainJob]:
    """Map jobs to those, by key, whose result does not stand in storage yet."""
    return {job.key: job for job in jobs if JobFolder(machine.storage, job.key).read_result() is None}


def _result(job: TrainJob, machine: Machine, error: str | None, cached: bool) -> JobResult:
    result = JobFolder(machine.storage, job.key).read_result()
    if result is None and error is None:
        error = "stopped without a result or a message"
    return JobResult(job=job, result=result, error=error if result is None else None, cached=cached)
