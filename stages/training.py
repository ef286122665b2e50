"""What the training stages share: jobs go to the runner, their records to tracking and to the terminal."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.artifacts import ARTIFACTS, read_manifests
from pipeline.fitting import advance, fit, unfinished
from pipeline.job_runs import end_values, epoch_values, job_params, job_tags, run_name, tables
from pipeline.jobs import TrainJob
from pipeline.plan_line import plan_line
from pipeline.plan_text import time_text
from pipeline.result_lines import value_cells
from pipeline.run_labels import study_data
from pipeline.storage import JobFolder
from pipeline.terminal import PLAN_UNTOLD, labelled
from pipeline.tracked_run import Run
from stages.session import Session


def train_jobs(
    session: Session,
    jobs: Sequence[TrainJob],
    tags: Mapping[str, Mapping[str, str]],
    more: Callable[[TrainJob, Mapping[str, Any]], Mapping[str, float]],
) -> dict[str, dict[str, Any]]:
    """Train a stage's jobs, each with a tracked run of its own; give their results by name.

    `more` maps a job and its result to further values for its run. Every job is brought to its end first;
    ValueError then names those that failed.
    """
    _tell_plan(session)
    runs = {job.key: _open(session, job, tags.get(job.name, {})) for job in jobs}
    log = _log(session, jobs, runs)
    outcomes = fit(jobs, session.machine, ARTIFACTS / "prepare", log)
    if before := sum(outcome.cached for outcome in outcomes):
        session.say(f"{before} of {len(outcomes)} networks were trained before and are taken from storage")
    failed = []
    for outcome in outcomes:
        run, result = runs[outcome.job.key], outcome.result
        if result is None:
            run.finish({}, "FAILED")
            failed.append(f"{outcome.job.name}: {outcome.error}")
            continue
        for file, text in tables(outcome.job, JobFolder(session.machine.storage, outcome.job.key), result).items():
            run.text(file, text)
        run.finish({**end_values(outcome.job, result), **more(outcome.job, result)})
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(outcomes)} networks failed; the others are kept:\n" + "\n".join(failed)
        )
    return {outcome.job.name: dict(outcome.result or {}) for outcome in outcomes}


def advance_jobs(
    session: Session, jobs: Sequence[TrainJob], tags: Mapping[str, Mapping[str, str]], epoch: int
) -> dict[str, float]:
    """Train a stage's jobs up to an epoch; give the best score so far by name, diverged ones left out."""
    _tell_plan(session)
    runs = {job.key: _open(session, job, tags.get(job.name, {})) for job in jobs}
    scores = advance(jobs, session.machine, ARTIFACTS / "prepare", _log(session, jobs, runs, epoch), epoch)
    return {job.name: scores[job.key] for job in jobs if job.key in scores}


def _tell_plan(session: Session) -> None:
    """Say once in a `make repro`, before its first training, what there is to train: the file is there until then."""
    untold = Path(os.environ.get(PLAN_UNTOLD) or os.devnull)
    if untold.is_file():
        untold.unlink()
        print(labelled("plan", plan_line(session.config, read_manifests(), session.machine)), flush=True)


def _log(
    session: Session, jobs: Sequence[TrainJob], runs: Mapping[str, Run], until: int | None = None
) -> Callable[[TrainJob, Mapping[str, Any]], None]:
    """What takes each finished epoch to the job's run and to the terminal."""
    last = {job.key: until or job.train.epochs for job in jobs}
    todo = unfinished(jobs, session.machine)
    begun = {key: len(JobFolder(session.machine.storage, key).read_history()) for key in todo}
    tell = progress(session, last, begun)

    def log(job: TrainJob, record: Mapping[str, Any]) -> None:
        runs[job.key].log(epoch_values(job, record), record["epoch"])
        if record["epoch"] > begun.get(
            job.key, 0
        ):  # tracking may lack epochs of an earlier command, the terminal had them
            tell(job, record)

    return log


def _open(session: Session, job: TrainJob, tags: Mapping[str, str]) -> Run:
    """A job's run, under its stage's; the same job's run again where there was one."""
    run = session.tracker.run(
        job.key,
        name=run_name(job, tags),
        tags={**session.tags, **job_tags(job, tags)},
        params=job_params(job),
        parent=session.run,
        links=session.links,
    )
    run.inputs(study_data(session.config, session.machine, read_manifests(), [name for name, *_ in job.datasets]))
    return run


def progress(
    session: Session, last: Mapping[str, int], begun: Mapping[str, int]
) -> Callable[[TrainJob, Mapping[str, Any]], None]:
    """How far it is after every epoch, and how long all of the stage's epochs will still take at the pace so far.

    `last` is the last epoch of each job by key, `begun` how many stand already of those that are unfinished.
    """
    started, done, finished = time.monotonic(), 0, len(last) - len(begun)
    epochs = sum(max(0, last[key] - count) for key, count in begun.items())

    def tell(job: TrainJob, record: Mapping[str, Any]) -> None:
        nonlocal done, finished
        done += 1
        finished += record["epoch"] == last[job.key]
        left = time_text((time.monotonic() - started) / done * (epochs - done))
        at = f"{finished} of {len(last)} networks, {left} left"
        session.progress(f"{at}  {job.name}, epoch {record['epoch']} of {last[job.key]}: {value_cells(record['val'])}")

    return tell
