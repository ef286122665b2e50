"""The whole chain, on a cluster.    python -m stages.submitted [--job NAME]    (what `make submit` runs there)

Starts from what earlier submissions of the study finished, and puts every stage's results into storage as the stage
ends, so that nothing finished is lost however the job ends. It leaves with the chain's exit code.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.config import ROOT, load
from pipeline.machine import load_machine
from pipeline.settings_file import read
from pipeline.storage import shown
from pipeline.study_folder import StudyFolder
from stages.session import start

POLL_SECONDS = 5.0
LAST_TRIES = 60  # with POLL_SECONDS between them, before results that storage does not take are given up
DVC = [sys.executable, "-m", "dvc"]
LOCK = ROOT / "dvc.lock"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.submitted", description="Run the whole chain, sent here.")
    parser.add_argument("--job", help="the submission's name, which its sender left in storage")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    machine = load_machine()
    study = StudyFolder(machine.storage, load().experiment)
    note = (study.notes.read("job") or b"") if arguments.job else b""
    if arguments.job and _told(note).get("job") != arguments.job:
        raise ValueError(
            f"storage {shown(machine.storage)}: not what the sender sees under that name; it must be one place"
        )
    # `ray job stop` sends SIGTERM: what has ended until then is still to be kept.
    signal.signal(signal.SIGTERM, _leave)
    # The stages are commands: their `python` and `dvc` are to be this process's.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    subprocess.run([*DVC, "config", "--local", "core.no_scm", "true"], cwd=ROOT, check=True)
    asked = subprocess.run([*DVC, "cache", "dir"], cwd=ROOT, check=True, capture_output=True, text=True)
    cache = Path(asked.stdout.strip())
    bring_earlier(study, cache, note)
    with keeping(study, cache, note):
        code = subprocess.run([sys.executable, "-m", "stages.repro"], cwd=ROOT, check=False).returncode
    sys.exit(code)


def bring_earlier(study: StudyFolder, cache: Path, note: bytes = b"") -> None:
    """Put in place what the study has finished by the lock that came along and storage's.

    Where both have a stage's results, those of the lock that came along count, unless storage's are of these very
    sources and settings.
    """
    came, stored = LOCK.read_bytes() if LOCK.exists() else None, study.lock
    contents = _told(note).get("contents")
    same = contents is not None and contents == _told(study.notes.read("kept") or b"").get("contents")
    first, second = (stored, came) if same and stored else (came, stored)
    lock = study.merged(first, second) if first and second else first or second
    if not lock:
        return
    chain = read(ROOT / "dvc.yaml")["stages"]
    whole = [stage for stage in study.bring(lock, cache) if stage in chain]
    LOCK.write_bytes(lock)
    if whole:
        subprocess.run([*DVC, "checkout", "--quiet", "--force", *whole], cwd=ROOT, check=True)
        print(f"finished before: {', '.join(whole)}", flush=True)


@contextmanager
def keeping(study: StudyFolder, cache: Path, note: bytes = b"") -> Iterator[None]:
    """Copy results to storage whenever a stage has ended, until the block ends, and once more then."""
    ended, kept, said = threading.Event(), b"", ""

    def keep(lock: bytes) -> bool:
        """Whether storage has them. Whatever is wrong is said once and ends neither the watching nor the chain."""
        nonlocal kept, said
        try:
            if lock != kept:
                study.keep(lock, cache, note)
                kept, said = lock, ""
        except Exception as error:
            if str(error) != said:
                said = str(error)
                print(f"results are not kept yet, trying again: {error}", file=sys.stderr, flush=True)
            return False
        return True

    def watch() -> None:
        before = b""
        while not ended.wait(POLL_SECONDS):
            lock = _lock()
            # DVC writes in place: only what has stood for a while is whole.
            if lock == before:
                keep(lock)
            before = lock

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for _ in range(LAST_TRIES):
            if keep(_lock()):
                break
            time.sleep(POLL_SECONDS)
        else:
            raise ValueError(
                f"storage {shown(study.storage)} took no results for {LAST_TRIES * POLL_SECONDS:.0f} s: {said}"
            )


def _lock() -> bytes:
    return LOCK.read_bytes() if LOCK.exists() else b""


def _told(note: bytes) -> dict[str, Any]:
    """What a submission's note says; nothing where there is none."""
    return json.loads(note or b"{}")


def _leave(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Ray may send it again, which must not end the last copy
    sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    start(main)
