"""What all stages share: settings, a tracked run, one clear message for a user's error.

A stage's `main` is called through `start`, which leaves with 2 after an error of the user's, 130 after Ctrl-C.
"""

import faulthandler
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.artifacts import ARTIFACTS, digest
from pipeline.config import ROOT, Config, Machine, load, load_machine
from pipeline.spool import shown
from pipeline.tracking import Run, Tracker, Where, spool_folder


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
    """Run a stage's main; errors of the user's come as one message without a traceback, a crash with where it was."""
    if sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)
    try:
        main()
    except ValueError as error:
        sys.exit(_fail(str(error)))
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def _fail(message: str) -> int:
    print(f"error: {shown(message)}", file=sys.stderr)
    return 2


@contextmanager
def session(stage: str) -> Iterator[Session]:
    """Open a stage: check both settings files as a whole, open its tracked run, close it with how the stage ended."""
    config, machine = load(), load_machine()
    started = time.monotonic()
    where = Where(uri=machine.tracking_uri or "", spool=spool_folder(machine.storage), experiment=config.experiment)
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


def revision() -> str:
    """The git revision of the working tree, with a mark where it is changed; "none" outside git."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "none"
