"""What the training stages share: jobs go to the runner, their records to tracking and to the terminal."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from models.tasks import TASKS
from pipeline.artifacts import ARTIFACTS
from pipeline.fitting import advance, fit, unfinished
from pipeline.jobs import TrainJob
from pipeline.storage import JobFolder
from pipeline.tracking import Run
from stages.session import Session, revision


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
    runs = {job.key: _open(session, job, tags.get(job.name, {})) for job in jobs}
    log = _log(session, jobs, runs)
    outcomes = fit(jobs, session.machine, ARTIFACTS / "prepare", log)
    failed = []
    for outcome in outcomes:
        run, result = runs[outcome.job.key], outcome.result
        if result is None:
            run.finish({}, "FAILED")
            failed.append(f"{outcome.job.name}: {outcome.error}")
            continue
        if outcome.cached:
            session.say(f"{session.stage} {outcome.job.name}: trained before, taken from storage")
        run.finish({**_values(outcome.job, result), **more(outcome.job, result)})
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(outcomes)} networks failed; the others are kept:\n" + "\n".join(failed)
        )
    return {outcome.job.name: dict(outcome.result or {}) for outcome in outcomes}


def advance_jobs(
    session: Session, jobs: Sequence[TrainJob], tags: Mapping[str, Mapping[str, str]], epoch: int
) -> dict[str, float]:
    """Train a stage's jobs up to an epoch; give the best score so far by name, diverged ones left out."""
    runs = {job.key: _open(session, job, tags.get(job.name, {})) for job in jobs}
    scores = advance(jobs, session.machine, ARTIFACTS / "prepare", _log(session, jobs, runs, epoch), epoch)
    return {job.name: scores[job.key] for job in jobs if job.key in scores}


def _log(
    session: Session, jobs: Sequence[TrainJob], runs: Mapping[str, Run], until: int | None = None
) -> Callable[[TrainJob, Mapping[str, Any]], None]:
    """What takes each finished epoch to the job's run and to the terminal."""
    last = {job.key: until or job.train.epochs for job in jobs}
    todo = unfinished(jobs, session.machine)
    begun = {key: len(JobFolder(session.machine.storage, key).read_history()) for key in todo}
    tell = progress(session, last, sum(max(0, last[key] - begun[key]) for key in todo))

    def log(job: TrainJob, record: Mapping[str, Any]) -> None:
        losses = {f"train/{name}/loss": value for name, value in record["losses"].items()}
        losses |= {f"train/{name}/weight": value for name, value in record["weights"].items()}
        metrics = {f"val/{name}/{_metric(job, name)}": value for name, value in record["val"].items()}
        runs[job.key].log({**losses, **metrics, "lr": record["lr"], "val/score": record["score"]}, record["epoch"])
        if record["epoch"] > begun.get(
            job.key, 0
        ):  # tracking may lack epochs of an earlier command, the terminal had them
            tell(job, record)

    return log


def _open(session: Session, job: TrainJob, tags: Mapping[str, str]) -> Run:
    """A job's run, under its stage's; the same job's run again where there was one."""
    params = {
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
    named = {"stage": session.stage, "job_key": job.key, "git": revision(), **tags}
    return session.tracker.run(job.key, name=job.name, tags=named, params=params, parent=session.run)


def _values(job: TrainJob, result: Mapping[str, Any]) -> dict[str, float]:
    """What a run shows at its end: validation of the kept epoch, test, and what the network costs."""
    best = {f"best/{name}/{_metric(job, name)}": value for name, value in result["val"].items()}
    final = {f"final/{name}/{_metric(job, name)}": value for name, value in result["test"].items()}
    if len(result["further"]) == 1:  # of several tasks, charts would be too many to look at
        final |= {
            f"final/{name}/{measure}": value
            for name, values in result["further"].items()
            for measure, value in values.items()
            if value is not None
        }
    cost = {"params_m": result["params"] / 1e6, "gmacs": result["flops"] / 2e9, "cost/seconds": result["seconds"]}
    return {**best, **final, **cost}


def progress(session: Session, last: Mapping[str, int], epochs: int) -> Callable[[TrainJob, Mapping[str, Any]], None]:
    """One line an epoch, with how long all of the stage's epochs will still take at the pace so far.

    `last` is the last epoch of each job, by key.
    """
    started, done = time.monotonic(), 0

    def tell(job: TrainJob, record: Mapping[str, Any]) -> None:
        nonlocal done
        done += 1
        left = (time.monotonic() - started) / done * (epochs - done)
        values = "  ".join(f"{name} {value:.3f}" for name, value in record["val"].items())
        said = f"{session.stage} {job.name}  epoch {record['epoch']}/{last[job.key]}  {values}  {left:.0f} s left"
        session.say(said)

    return tell


def _metric(job: TrainJob, task: str) -> str:
    return next(TASKS[spec.kind].metric_name for spec in job.model.tasks if spec.name == task)
