"""Task affinities -> a heat map as SVG text, which needs no library to draw and none to show."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

CELL, NAME, GAP, TITLE = 26, 110, 24, 22  # pixels: a cell, the tasks' names, between two maps, a map's title
PALE, DARK = (247, 252, 240), (8, 64, 129)  # the ends of the scale
PRINTED = 12  # tasks up to which cells hold their number
READABLE = 0.68  # the share of the scale from which white letters are read better than black ones
LETTERS = 16  # of a task's name


def affinity_svg(rows: Sequence[Mapping[str, Any]]) -> str:
    """Map the rows of the affinity stage's table to one map a location, all on the scale from 0 to 1."""
    tasks = list(dict.fromkeys(row["task_a"] for row in rows))
    locations = list(dict.fromkeys(row["location"] for row in rows))
    value = {(row["location"], row["task_a"], row["task_b"]): row["value"] for row in rows}
    side = CELL * len(tasks)
    width, height = NAME + len(locations) * (side + GAP), TITLE + side + NAME
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="sans-serif" font-size="10">',
        "<title>Affinity of the tasks at every location (Spearman correlation of their RDMs)</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for row, task in enumerate(tasks):
        y = TITLE + CELL * row + CELL / 2 + 3
        parts.append(f'<text x="{NAME - 6}" y="{y}" text-anchor="end">{escape(task[:LETTERS])}</text>')
    for place, location in enumerate(locations):
        left = NAME + place * (side + GAP)
        parts.append(f'<text x="{left}" y="{TITLE - 8}" font-size="12">location {location}</text>')
        parts += _cells(tasks, {(a, b): value[location, a, b] for a in tasks for b in tasks}, left)
    return "\n".join([*parts, "</svg>"])


def _cells(tasks: Sequence[str], value: Mapping[tuple[str, str], float], left: int) -> Iterator[str]:
    for row, a in enumerate(tasks):
        for column, b in enumerate(tasks):
            x, y = left + CELL * column, TITLE + CELL * row
            yield f'<rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" fill="{_colour(value[a, b])}" stroke="white"/>'
            if len(tasks) <= PRINTED and a != b:
                ink = "white" if value[a, b] > READABLE else "black"
                middle = f'x="{x + CELL / 2}" y="{y + CELL / 2 + 3}" text-anchor="middle"'
                yield f'<text {middle} font-size="9" fill="{ink}">{value[a, b]:.2f}</text>'
    for column, task in enumerate(tasks):
        x, y = left + CELL * column + CELL / 2 + 3, TITLE + CELL * len(tasks) + 6
        name = escape(task[:LETTERS])
        yield f'<text x="{x}" y="{y}" text-anchor="end" transform="rotate(-60 {x} {y})">{name}</text>'


def _colour(value: float) -> str:
    share = min(1.0, max(0.0, value))
    red, green, blue = (round(pale + share * (dark - pale)) for pale, dark in zip(PALE, DARK, strict=True))
    return f"rgb({red},{green},{blue})"
