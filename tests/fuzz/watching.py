"""What a piece of code opens and starts, told by Python's own audit events."""

import os
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.config import ROOT

RUNS_CODE = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class", "marshal.loads")
SLOWEST = 5.0  # seconds of this process for one input
_PLACES = (*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix, "/proc", "/sys", "/dev", "/usr")
LIBRARIES = (
    *_PLACES,
    *map(os.path.realpath, _PLACES),
    *(str(ROOT / folder) for folder in ("models", "pipeline", "tests")),
)
_seen: list[tuple[str, Any]] | None = None
_hooked = False


@contextmanager
def confined(folder: Path) -> Iterator[None]:
    """Fail where the block runs code, opens files neither below `folder` nor of a library, or takes too long."""
    global _seen, _hooked
    if not _hooked:
        sys.addaudithook(_note)  # for good: Python has no way to take one away
        _hooked = True
    _seen, began = [], time.process_time()
    try:
        yield
    finally:
        seen, _seen = _seen, None
    assert time.process_time() - began < SLOWEST
    ran = [event for event in seen if event[0] in RUNS_CODE]
    assert not ran, f"code was run: {ran}"
    opened = {os.path.normpath(os.path.abspath(name)) for event, name in seen if event == "open"}
    strange = [name for name in opened if not name.startswith((f"{folder}{os.sep}", *LIBRARIES))]
    assert not strange, f"files outside were opened: {strange}"


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is None:
        return
    if event in RUNS_CODE and not (event == "marshal.loads" and _importing()):
        _seen.append((event, arguments))
    elif event == "open" and isinstance(arguments[0], str | bytes):
        _seen.append((event, os.fsdecode(arguments[0])))


def _importing() -> bool:
    """Whether the innermost Python frame is the import system's, which reads compiled modules so."""
    return sys._getframe(2).f_code.co_filename.startswith("<frozen importlib")
