"""What all stages share: settings, a tracked run, one clear message for an error, a log file.

A stage's `main` is called through `start`, which leaves with 2 after an error of the user's, 1 after an unexpected one,
130 after Ctrl-C. Tracebacks stand in the log; -v, or COPPICE_VERBOSE=1, shows them too.
"""

import faulthandler
import gc
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.artifacts import ARTIFACTS, digest
from pipeline.config import ROOT, Config, load
from pipeline.machine import Machine, load_machine
from pipeline.plan_text import time_text
from pipeline.run_labels import baseline_run, study_tags
from pipeline.run_log import RunLog
from pipeline.run_notes import describe_stage
from pipeline.spool import Where, shown, spool_folder
from pipeline.stage_records import record_stage
from pipeline.terminal import at_terminal, labelled, passing, screen, timed
from pipeline.tracked_run import Run
from pipeline.tracker import Tracker
from stages import COLLECTING

VERBOSE = "COPPICE_VERBOSE"


@dataclass(frozen=True, kw_only=True)
class Session:
    """One stage at work: its settings, and its run in tracking, under which its jobs' runs stand.

    `tags` and `links` are those of all its runs.
    """

    stage: str
    config: Config
    machine: Machine
    tracker: Tracker
    run: Run
    tags: Mapping[str, str]
    links: Mapping[str, str]
    results: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        print(labelled(self.stage, text), flush=True)

    def progress(self, text: str, *, in_pipes: bool = True) -> None:
        """Say how far it is; in a terminal the next line takes this one's place, in a pipe it is one of many."""
        if in_pipes or at_terminal():
            passing(labelled(self.stage, text))

    def result(self, text: str) -> None:
        """Keep some lines to say when the stage has ended, its time beside the first."""
        self.results.append(text)


def start(main: Callable[[], None], *, logged: bool = False) -> None:
    """Run a command's main; an error of the user's is one message, an unexpected one a line that says where it was.

    What is printed goes to a log file: always where `logged`, else only if the command fails.
    """
    gc.set_threshold(*COLLECTING)
    if sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)
    log = RunLog(Path(sys.argv[0]).stem)
    try:
        with screen(log.note):
            _take_flags()
            if logged:
                log.keep()
            code = _run(main, log)
    finally:
        log.close()
    if code:
        sys.exit(code)


def verbose() -> bool:
    """Whether everything is to be shown."""
    return os.environ.get(VERBOSE, "0") not in ("", "0")


def _take_flags() -> None:
    """Take -v from the arguments to the environment, where the stages of `make repro` find it too."""
    flags = {"-v", "--verbose"} & set(sys.argv[1:])
    sys.argv[1:] = [argument for argument in sys.argv[1:] if argument not in flags]
    if flags:
        os.environ[VERBOSE] = "1"


def _run(main: Callable[[], None], log: RunLog) -> int:
    """Run a main; give the code that its process leaves with."""
    try:
        main()
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    except Exception as error:
        path, story = log.keep(), shown(traceback.format_exc())
        if verbose():
            print(story, file=sys.stderr)
        else:
            log.note(story)
        users = isinstance(error, ValueError)
        print(f"error: {shown(str(error)) if users else _unexpected(error, path)}", file=sys.stderr)
        return 2 if users else 1
    return 0


def _unexpected(error: Exception, log: Path | None) -> str:
    """What, where, and where to read on."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(ROOT) and "/.venv/" not in frame.filename]
    last = (ours or frames)[-1]
    place = Path(last.filename)
    where = place.relative_to(ROOT) if ours else place
    what = shown("".join(traceback.format_exception_only(error)).strip().splitlines()[0])
    more = f"; its log is {log}" if log else ""
    return f"unexpected {what} at {where}:{last.lineno}{more}{'' if verbose() else '; -v shows the traceback'}"


@contextmanager
def session(stage: str) -> Iterator[Session]:
    """Open a stage: check both settings files as a whole, open its tracked run, close it with how the stage ended."""
    config, machine = load(), load_machine()
    started = time.monotonic()
    where = Where(uri=machine.tracking_uri or "", spool=spool_folder(machine.storage), experiment=config.experiment)
    with Tracker(where) as tracker:
        settings = config.model_dump()
        id, tags = f"{stage}-{digest([stage, settings])}", study_tags(config, stage, revision())
        single = id if stage == "pretrain" else baseline_run(where.spool, ARTIFACTS) if stage != "prepare" else None
        links = {"baseline_run_id": single} if single else {}
        run = tracker.run(id, name=stage, tags=tags, params=settings, links=links)
        status = "FAILED"
        at = Session(stage=stage, config=config, machine=machine, tracker=tracker, run=run, tags=tags, links=links)
        try:
            yield at
            status = "FINISHED"
            describe_stage(run, stage, config, machine, ARTIFACTS)
            record_stage(stage, time.monotonic() - started)
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            run.finish({"cost/seconds": time.monotonic() - started}, status)
    at.say(timed("\n".join(at.results) or "done", time_text(time.monotonic() - started)))


def revision() -> str:
    """The git revision of the working tree, with a mark where it is changed; "none" outside git."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "none"
