"""Two sides that were measured in turn -> a line of benchmarks/RESULTS.md: their ratio, its spread, the goal for it."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from statistics import median

from benchmarks.timing import Times

KEPT = "COPPICE_BENCH_LINES"  # the file to which `python -m benchmarks` wants a benchmark's lines


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a figure was to be; both ends belong to it."""

    least: float = -inf
    most: float = inf

    def __str__(self) -> str:
        if self.least == -inf:
            return f"≤ {self.most:g}"
        return f"≥ {self.least:,g}" if self.most == inf else f"{self.least:g} – {self.most:g}"

    def met(self, value: float) -> bool:
        return self.least <= value <= self.most


@dataclass(frozen=True, kw_only=True)
class Line:
    """One comparison. `value` is the median of the rounds' ratios, or a figure in `unit`; `low`, `high` their extremes.

    row     of the table of goals that the project set itself (benchmarks/__main__.py)
    what    what of ours was measured, and on what
    beside  what it is compared with
    clock   whose time: cpu, of this process, or wall; empty where it isn't time
    took    ours, in words
    """

    row: int
    what: str
    beside: str
    value: float
    low: float
    high: float
    unit: str = "×"
    clock: str = ""
    took: str = ""
    goal: Goal | None = None

    @property
    def figure(self) -> str:
        return _number(self.value, self.unit)

    @property
    def spread(self) -> str:
        return "" if self.low == self.high else f"{_number(self.low, '')} – {_number(self.high, '')}".strip()

    @property
    def verdict(self) -> str:
        return "" if self.goal is None else "met" if self.goal.met(self.value) else "missed"

    def __str__(self) -> str:
        spread = f" ({self.spread})" if self.spread else ""
        goal = f"; goal {self.goal}: {self.verdict}" if self.goal else ""
        took = f"; {self.took}" if self.took else ""
        return f"{self.what} | {self.beside}: {self.figure}{spread}{goal}{took}"


def longer(
    row: int, what: str, beside: str, mine: Times, base: Times, *, clock: str = "cpu", goal: Goal | None = None
) -> Line:
    """How many times as long ours takes, by rounds."""
    return _compared(row, what, beside, (mine, base), mine, clock, goal)


def faster(
    row: int, what: str, beside: str, mine: Times, base: Times, *, clock: str = "cpu", goal: Goal | None = None
) -> Line:
    """How many times as fast ours is, by rounds."""
    return _compared(row, what, beside, (base, mine), mine, clock, goal)


def figure(row: int, what: str, beside: str, values: Sequence[float], unit: str, goal: Goal | None = None) -> Line:
    """A figure of its own, or a ratio of what isn't time."""
    return Line(
        row=row,
        what=what,
        beside=beside,
        value=median(values),
        low=min(values),
        high=max(values),
        unit=unit,
        goal=goal,
    )


def show(lines: Iterable[Line]) -> None:
    """Print lines as they are measured; where `python -m benchmarks` asks for them, leave them in its file."""
    kept = []
    for line in lines:
        print(line, flush=True)
        kept.append(asdict(line))
    if path := os.environ.get(KEPT):
        with open(path, "w") as file:
            json.dump(kept, file)


def read(rows: Sequence[dict[str, object]]) -> list[Line]:
    """Lines as `show` left them."""
    return [Line(**{**row, "goal": Goal(**row["goal"]) if row["goal"] else None}) for row in rows]  # pyright: ignore[reportArgumentType, reportCallIssue]


def note(text: str) -> None:
    """Say on the way what is at work; it is no result."""
    print(text, file=sys.stderr, flush=True)


def _compared(
    row: int, what: str, beside: str, sides: tuple[Times, Times], mine: Times, clock: str, goal: Goal | None
) -> Line:
    ratios = [one / other for one, other in zip(*(side.of(clock) for side in sides), strict=True)]
    return replace(figure(row, what, beside, ratios, "×", goal), clock=clock, took=duration(min(mine.of(clock))))


def duration(seconds: float) -> str:
    """Seconds in the unit in which one thinks of them."""
    units = (("years", 365.25 * 86_400), ("days", 86_400), ("hours", 3_600), ("min", 60), ("s", 1), ("ms", 1e-3))
    for unit, length in units:
        if seconds >= length:
            return f"{seconds / length:,.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _number(value: float, unit: str) -> str:
    shown = (
        f"{value:,.0f}"
        if abs(value) >= 1000
        else f"{value:.3g}"
        if abs(value) < 0.1 or abs(value) >= 10
        else f"{value:.3f}"
    )
    return f"× {shown}" if unit == "×" else f"{shown} {unit}".strip()
