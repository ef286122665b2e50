"""`make repro` in a fresh copy, and once more with nothing to do.    python -m benchmarks.chain    (about 15 minutes)

The copy holds the last commit alone: no data, no results, no compiled files; its virtual environment is this one.
Memory is looked at once a second and summed over make and all processes below it: what each has of its own, and its
part of what it shares with others (PSS); where the system does not tell that, all that it has in memory (RSS).
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.lines import Goal, Line, figure, note, show
from pipeline.config import ROOT
from pipeline.stage_records import FOLDER, read_stage

UP_TO_DATE = "nothing to do"
LOOK_SECONDS = 1.0


def lines(preset: str = "") -> Iterator[Line]:
    """The chain on the default settings, or on a preset's: `smoke` shows in four minutes that this file works."""
    with TemporaryDirectory() as folder:
        copy = checkout(Path(folder))
        what = f"`make repro{f' PRESET={preset}' if preset else ''}`"
        note(f"{what} runs in a copy")
        first, memory = _repro(copy, preset)
        yield figure(10, f"{what} in a fresh copy", "–", [first / 60], "min", Goal(most=15))
        yield from _stages(copy, first)
        second, memory_then = _repro(copy, preset)
        said = (copy.parent / "said").read_text()
        assert UP_TO_DATE in said, said
        yield figure(10, f"{what} again: nothing to do", "–", [second], "s", Goal(most=15))
        yield figure(10, "memory of all its processes", "–", [max(memory, memory_then) / 1e9], "GB", Goal(most=4))


def checkout(folder: Path) -> Path:
    """The last commit in a folder below this one, with a link to this process's virtual environment."""
    copy = folder / "coppice"
    subprocess.run(["git", "clone", "--quiet", ROOT, copy], check=True)
    (copy / ".venv").symlink_to(sys.prefix)
    return copy


def _repro(copy: Path, preset: str) -> tuple[float, int]:
    """Run the chain; give its seconds on the wall, and the most bytes that its processes held at one moment."""
    # The lock of a fresh copy is younger than the environment; that is not to be installed anew.
    command = ["make", "--old-file=.venv/.ready", "repro", *([f"PRESET={preset}"] if preset else [])]
    most, began, output = 0, time.perf_counter(), copy.parent / "said"
    with output.open("w") as said, subprocess.Popen(command, cwd=copy, stdout=said, stderr=said) as make:
        watched = psutil.Process(make.pid)
        while make.poll() is None:
            most = max(most, _held(watched))
            with suppress(subprocess.TimeoutExpired):
                make.wait(LOOK_SECONDS)
    seconds = time.perf_counter() - began
    if make.returncode:
        raise RuntimeError(f"make repro left with {make.returncode}:\n{output.read_text()[-2000:]}")
    return seconds, most


def _held(watched: psutil.Process) -> int:
    total = 0
    with suppress(psutil.Error):
        for process in (watched, *watched.children(recursive=True)):
            with suppress(psutil.Error):  # it may have ended since
                memory = process.memory_full_info()
                total += getattr(memory, "pss", memory.rss)
    return total


def _stages(copy: Path, total: float) -> Iterator[Line]:
    """The seconds of each stage's own work, and of all else: DVC, starts of Python, imports."""
    artifacts = copy / "artifacts"
    for path in sorted((artifacts / FOLDER).glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
        record = read_stage(path.stem, artifacts)
        assert record is not None
        total -= record.seconds
        yield figure(10, f"of which stage {path.stem}", "–", [record.seconds], "s")
    yield figure(10, "of which the rest: DVC, starts, imports", "–", [total], "s")


if __name__ == "__main__":
    show(lines())
