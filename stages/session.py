"""What all stages share: one clear message for a user's error, tracked runs, lines about progress.

A stage's `main` is called through `start`, which leaves with 2 after an error of the user's, 130 after Ctrl-C.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.artifacts import ARTIFACTS, digest
from pipeline.config import ROOT, Config, Machine, load, load_machine
from pipeline.jobs import TrainJob
from pipeline.tracking import Run, Tracker, Where


@dataclass(frozen=True, kw_only=True)
class Session:
    """One stage at work: its settings, and its run in tracking, under which its jobs' runs stand."""

    stage: str
    config: Config
    machine: Machine
    tracker: Tracker
    run: Run

    def say(self, text: str) -> None:
        print(text, flush=True)


def start(main: Callable[[], None]) -> None:
    """Run a stage's main; errors of the user's come as one message without a traceback."""
    try:
        main()
    except ValueError as error:
        sys.exit(_fail(str(error)))
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


@contextmanager
def session(stage: str) -> Iterator[Session]:
    """Open a stage: check both settings files as a whole, open its tracked run, close it with how the stage ended."""
    config, machine = load(), load_machine()
    started = time.monotonic()
    where = Where(uri=machine.tracking_uri or "", spool=ROOT / "runs/tracking", experiment=config.experiment)
    with Tracker(where) as tracker:
        settings = config.model_dump()
        run = tracker.run(
            f"{stage}-{digest([stage, settings])}",
            name=stage,
            tags={"stage": stage, "strategy": "", "git": revision(), "study": config.experiment},
            params=settings,
        )
        status = "FAILED"
        try:
            yield Session(stage=stage, config=config, machine=machine, tracker=tracker, run=run)
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            run.finish({"cost/seconds": time.monotonic() - started}, status)
    print(f"{stage}: done in {time.monotonic() - started:.0f} s -> {(ARTIFACTS / stage).relative_to(ROOT)}", flush=True)


def train_jobs(session: Session, jobs: Sequence[TrainJob], tags: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, Any]]:
    """Train a stage's jobs, each with a tracked run of its own; give their results by name.

    Every job is brought to its end first; ValueError then names those that failed.
    """
    from pipeline.runner import fit

    runs = {
        job.key: session.tracker.run(
            job.key,
            name=job.name,
            tags={"stage": session.stage, "job_key": job.key, "git": revision(), **tags.get(job.name, {})},
            params={"train": job.train.model_dump(), "seed": job.seed, "backbone": job.model.backbone.name,
                    "tasks": ",".join(job.model.task_names), "groups": str(job.model.groups)},
            parent=session.run,
        )
        for job in jobs
    }
    tell = progress(session, len({job.key for job in jobs}), jobs[0].train.epochs)

    def log(job: TrainJob, record: Mapping[str, Any]) -> None:
        losses = {f"train/{name}/loss": value for name, value in record["losses"].items()}
        metrics = {f"val/{name}/{_metric(job, name)}": value for name, value in record["val"].items()}
        runs[job.key].log({**losses, **metrics, "lr": record["lr"], "val/score": record["score"]}, record["epoch"])
        tell(job, record)

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
        best = {f"best/{name}/{_metric(outcome.job, name)}": value for name, value in result["val"].items()}
        final = {f"final/{name}/{_metric(outcome.job, name)}": value for name, value in result["test"].items()}
        cost = {"params_m": result["params"] / 1e6, "gmacs": result["flops"] / 2e9, "cost/seconds": result["seconds"]}
        run.finish({**best, **final, **cost})
    if failed:
        raise ValueError(f"{len(failed)} of {len(outcomes)} networks failed; the others are kept:\n" + "\n".join(failed))
    return {outcome.job.name: dict(outcome.result or {}) for outcome in outcomes}


def progress(session: Session, jobs: int, epochs: int) -> Callable[[TrainJob, Mapping[str, Any]], None]:
    """One line an epoch, with how long all of the stage's jobs will still take at the pace so far."""
    started, done = time.monotonic(), 0

    def tell(job: TrainJob, record: Mapping[str, Any]) -> None:
        nonlocal done
        done += 1
        left = (time.monotonic() - started) / done * (jobs * epochs - done)
        values = "  ".join(f"{name} {value:.3f}" for name, value in record["val"].items())
        session.say(f"{session.stage} {job.name}  epoch {record['epoch']}/{epochs}  {values}  {left:.0f} s left")

    return tell


def _metric(job: TrainJob, task: str) -> str:
    from models.tasks import TASKS

    return next(TASKS[spec.kind].metric_name for spec in job.model.tasks if spec.name == task)


def revision() -> str:
    """The git revision of the working tree, with a mark where it is changed; "none" outside git."""
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "none"
