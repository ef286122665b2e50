"""All that a command prints, and the traceback of what ended it, in a file: <storage>/logs/<command>-<time>.log."""

import os
import sys
import time
from collections import deque
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TextIO

from pipeline.machine import load_machine
from pipeline.spool import shown

KEPT = 50  # files
EARLY = 1000  # pieces of text that a command may print before it is known whether they are worth a file
LIBRARIES = ("torch", "torchvision", "timm", "torchmetrics", "ray", "mlflow", "dvc", "pyarrow")


def log_folder() -> Path:
    """Beside the checkpoints, where these lie in a folder of this machine; else ./runs/logs."""
    try:
        storage = load_machine().storage
    except ValueError:  # the command says what is wrong with machine.yaml
        storage = "runs"
    return Path("runs" if "://" in storage else storage).resolve() / "logs"


class RunLog:
    """What one command prints. Nothing is written before `keep`; what can't be written is left out."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._early: deque[str] = deque(maxlen=EARLY)
        self._file: TextIO | None = None
        self.path: Path | None = None

    def note(self, text: str) -> None:
        """Take a piece of what is printed."""
        if self._file is None:
            self._early.append(text)
            return
        try:
            self._file.write(text)
        except OSError:  # a full disk is no reason to stop
            self._file = None

    def keep(self) -> Path | None:
        """Begin the file, with what was printed so far; gives its path, None where it can't be written."""
        if self.path is not None:
            return self.path
        stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        try:
            folder = log_folder()
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{self._command}-{stamp}.log"
            self._file = path.open("w", encoding="utf-8", buffering=1)
            self._file.write(_head() + "".join(self._early))
            for old in _by_age(folder)[:-KEPT]:
                old.unlink(missing_ok=True)
        except OSError:
            return None
        self._early.clear()
        self.path = path
        return path

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def last_logs(count: int) -> list[Path]:
    """The newest logs, oldest of them first."""
    return _by_age(log_folder())[-count:]


def versions() -> dict[str, str]:
    """Python and the libraries that decide what a run does; none is imported for it."""
    return {"python": sys.version.split()[0]} | {name: _version(name) for name in LIBRARIES}


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def _by_age(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime_ns)


def _head() -> str:
    parts = "  ".join(f"{name} {number}" for name, number in versions().items())
    began = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return f"command  {shown(' '.join([sys.executable, *sys.argv]))}\nbegun    {began} in {Path.cwd()}\n{parts}\n\n"
