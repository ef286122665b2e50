"""Kept lines of all benchmarks -> the text of benchmarks/RESULTS.md: no figure in it is typed by hand."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from benchmarks.lines import Line, duration, read

HEAD = """# How fast

Written by `make bench`; every figure comes from one of the commands below, on the machine named. A comparison runs its
sides in turn in one process; its figure is the median of the rounds' ratios, *spread* their least and largest. *took*
is the fastest round of ours. Clock: time of this process on the CPU, or on the wall.
"""


def written(records: Sequence[Mapping[str, Any]], rows: Mapping[int, str]) -> str:
    """Map what `python -m benchmarks` keeps of each benchmark to the page: a part a machine, a table a row of goals."""
    parts = [HEAD]
    for machine, found in groupby(sorted(records, key=lambda record: record["machine"]), lambda one: one["machine"]):
        parts += _part(machine, list(found), rows)
    return "\n".join(parts)


def _part(machine: str, records: Sequence[Mapping[str, Any]], rows: Mapping[int, str]) -> list[str]:
    lines = [(line, record) for record in records for line in read(record["lines"])]
    goals = [line for line, _ in lines if line.goal]
    met = sum(line.verdict == "met" for line in goals)
    versions = {name: number for record in records for name, number in record["versions"].items()}
    parts = [
        f"## {machine}\n",
        f"{', '.join(f'{name} {number}' for name, number in versions.items())}. {met} of {len(goals)} goals met.\n",
    ]
    for row, title in rows.items():
        if own := [line for line, _ in lines if line.row == row]:
            parts += [f"### {row}. {title}\n", _table(own)]
    return [*parts, "### Commands\n", _commands(records)]


def _table(lines: Sequence[Line]) -> str:
    head = ("what", "beside", "figure", "spread", "took", "clock", "goal", "")
    cells = [
        (line.what, line.beside, line.figure, line.spread, line.took, line.clock, str(line.goal or ""), line.verdict)
        for line in lines
    ]
    return _markdown(head, cells)


def _commands(records: Sequence[Mapping[str, Any]]) -> str:
    head = ("command", "title", "took", "load at its start", "revision", "date")
    cells = [
        (
            f"`{one['command']}`",
            one["title"],
            duration(one["seconds"]),
            f"{one['load']:.1f}",
            one["revision"],
            one["date"],
        )
        for one in records
    ]
    return _markdown(head, cells)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines) + "\n"
