"""The whole chain, on a cluster.    python -m stages.submitted [--job NAME]    (what `make submit` runs there)

Starts from what earlier submissions of the study finished, and puts every stage's results into storage as the stage
ends, so that nothing finished is lost however the job ends. It leaves with the chain's exit code.
"""

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.config import ROOT, load, load_machine
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
    if arguments.job and study.notes.read("job") != arguments.job.encode():
        raise ValueError(f"storage {machine.storage}: not what the sender sees under that name; it must be one place")
    # The stages are commands: their `python` and `dvc` are to be this process's.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    subprocess.run([*DVC, "config", "--local", "core.no_scm", "true"], cwd=ROOT, check=True)
    asked = subprocess.run([*DVC, "cache", "dir"], cwd=ROOT, check=True, capture_output=True, text=True)
    cache = Path(asked.stdout.strip())
    bring_earlier(study, cache)
    with keeping(study, cache):
        code = subprocess.run([sys.executable, "-m", "stages.repro"], cwd=ROOT, check=False).returncode
    sys.exit(code)


def bring_earlier(study: StudyFolder, cache: Path) -> None:
    """Put in place what the lock that came along names, or else what the study's last submission finished."""
    lock = LOCK.read_bytes() if LOCK.exists() else study.notes.read("dvc.lock")
    if lock is None:
        return
    whole = study.bring(lock, cache)
    LOCK.write_bytes(lock)
    if whole:
        subprocess.run([*DVC, "checkout", "--quiet", "--force", *whole], cwd=ROOT, check=True)
        print(f"finished before: {', '.join(whole)}", flush=True)


@contextmanager
def keeping(study: StudyFolder, cache: Path) -> Iterator[None]:
    """Copy results to storage whenever a stage has ended, until the block ends, and once more then."""
    ended, kept = threading.Event(), b""

    def keep() -> None:
        nonlocal kept
        lock = LOCK.read_bytes() if LOCK.exists() else b""
        if lock != kept:
            study.keep(lock, cache)
            kept = lock

    def kept_all() -> bool:
        try:
            keep()
        except OSError as error:
            print(f"storage is away, trying again: {error}", file=sys.stderr, flush=True)
            return False
        return True

    def watch() -> None:
        while not ended.wait(POLL_SECONDS):
            kept_all()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for _ in range(LAST_TRIES):
            if kept_all():
                break
            time.sleep(POLL_SECONDS)
        else:
            raise ValueError(f"storage {study.storage} took no results for {LAST_TRIES * POLL_SECONDS:.0f} s")


if __name__ == "__main__":
    start(main)
