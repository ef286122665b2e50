"""What people see of a command: lines under the stage's name, and in a terminal one passing line, rewritten in place.

A passing line begins with a carriage return and has no end; whatever is printed next takes its place. `make repro`
reads the stages through pipes, and tells them by COPPICE_TERMINAL that a terminal is at the other end.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import TextIOBase
from threading import RLock
from typing import Any, TextIO

AT_END = "COPPICE_TERMINAL"
PLAN_UNTOLD = "COPPICE_PLAN_UNTOLD"  # the path of a file that is there as long as the plan was not told
LABEL = 11  # columns of a stage's name
LINE = 100  # columns of a line of results, its time included
ERASE = "\x1b[K"  # to the end of the row


def labelled(label: str, text: str) -> str:
    """Map a stage's name and its lines to a block with the name before the first of them."""
    first, *more = text.splitlines() or [""]
    return "\n".join([f"{label:<{LABEL}}{first}", *(f"{'':<{LABEL}}{line}" for line in more)])


def timed(text: str, time: str) -> str:
    """Put a time at the right end of a text's first line."""
    first, *more = text.splitlines() or [""]
    room = LINE - LABEL - len(time)
    return "\n".join([f"{first:<{room - 2}}  {time}", *more])


def folded(cells: Sequence[str], between: str = "  ") -> str:
    """Cells side by side, in as many lines as they need."""
    lines: list[str] = []
    for cell in cells:
        if lines and len(lines[-1]) + len(between) + len(cell) <= LINE - LABEL - 10:
            lines[-1] += between + cell
        else:
            lines.append(cell)
    return "\n".join(lines)


def at_terminal() -> bool:
    """Whether a person's terminal shows what this process prints."""
    if os.environ.get("TERM") == "dumb":
        return False
    return os.environ.get(AT_END) == "1" or bool(sys.__stdout__ and sys.__stdout__.isatty())


def passing(text: str) -> None:
    """Show how far work is: in place in a terminal, else as a line."""
    if at_terminal():
        print(f"\r{text[: _columns() - 1]}{ERASE}", end="", flush=True)
    else:
        print(text, flush=True)


def _columns() -> int:
    """The terminal's width; of a stage of `make repro` only the input still is that terminal."""
    for number in (1, 2, 0):
        try:
            return os.get_terminal_size(number).columns or 80
        except OSError:
            continue
    return 80


@contextmanager
def screen(note: Callable[[str], None]) -> Iterator[None]:
    """Put what the block prints where it belongs: passing lines give way to others, `note` gets a copy of each."""
    shared = _Row(out=sys.stdout, terminal=at_terminal(), note=note)
    with redirect_stdout(_Stream(sys.stdout, shared)), redirect_stderr(_Stream(sys.stderr, shared)):
        try:
            yield
        finally:
            shared.clear()


@dataclass
class _Row:
    """The terminal's last row, which output and errors share."""

    out: TextIO
    terminal: bool
    note: Callable[[str], None]
    lock: Any = field(default_factory=RLock)
    taken: bool = False

    def clear(self) -> None:
        with self.lock:
            if self.taken:
                self.out.write(f"\r{ERASE}")
                self.out.flush()
            self.taken = False


class _Stream(TextIOBase):
    """A text stream whose text takes the place of a passing line."""

    def __init__(self, inner: TextIO, row: _Row) -> None:
        self._inner, self._row = inner, row

    def write(self, text: str) -> int:
        row, passes = self._row, self._row.terminal and text.startswith("\r") and "\n" not in text
        if not text:
            return 0
        with row.lock:
            if plain := text.replace("\r", "").replace(ERASE, ""):
                row.note(plain + "\n" * passes)
            if not passes:
                row.clear()
            self._inner.write(text)
            row.taken = passes
        return len(text)

    def flush(self) -> None:
        self._inner.flush()

    def fileno(self) -> int:
        return self._inner.fileno()

    def isatty(self) -> bool:
        return self._inner.isatty()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._inner.encoding
