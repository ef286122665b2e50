"""Named points -> their names beside them, each where it covers no other name, point or error bar.

Boxes are in inches from the axes' lower left corner: left, bottom, right, top.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib import patheffects
from matplotlib.axes import Axes

LETTER, LINE = 0.078, 0.15  # width of a bold letter and height of a line at FONT points
FONT = 8.5
MARKER, BAR = 0.08, 0.04  # half the width of a marker and of an error bar
ROOM = (0.93, 0.8)  # share of the figure, or of a panel of it, that the axes take
SIDES = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1), (0, 2), (0, -2))

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point with a name, or without one where it only takes its place; `spread` is half its error bar's length."""

    x: float
    y: float
    text: str
    spread: float = 0.0


def label_points(axes: Axes, points: Sequence[Point], panel: tuple[float, float] | None = None) -> None:
    """Write the points' names, from left to right each at the first side of its point that is free.

    `panel` is the size of the axes with their own labels in inches; without it they have the figure to themselves.
    """
    width, height = panel or axes.figure.get_size_inches()  # pyright: ignore[reportAttributeAccessIssue]
    size = (width * ROOM[0], height * ROOM[1])
    taken = [box for point in points for box in _boxes(axes, point, size)]
    for point in sorted((point for point in points if point.text), key=lambda point: (point.x, point.y)):
        candidates = [_text_box(axes, point, side, size) for side in SIDES]
        box = min(candidates, key=lambda box: sum(_overlap(box, other) for other in taken) + _outside(box, size))
        taken.append(box)
        x, y = _inches(axes, point.x, point.y, size)
        axes.annotate(
            point.text,
            (point.x, point.y),
            xytext=(72 * ((box[0] + box[2]) / 2 - x), 72 * ((box[1] + box[3]) / 2 - y)),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=FONT,
            fontweight="bold",
            zorder=5,
            path_effects=[patheffects.withStroke(linewidth=2.5, foreground="white")],
        )


def _inches(axes: Axes, x: float, y: float, size: tuple[float, float]) -> tuple[float, float]:
    # On a logarithmic axis even steps in inches are even factors.
    scale = axes.transScale.transform  # pyright: ignore[reportAttributeAccessIssue]
    corners = zip(axes.get_xlim(), axes.get_ylim(), strict=True)
    (left, bottom), (right, top), (x, y) = (scale(place) for place in (*corners, (x, y)))
    return (x - left) / (right - left) * size[0], (y - bottom) / (top - bottom) * size[1]


def _boxes(axes: Axes, point: Point, size: tuple[float, float]) -> tuple[Box, Box]:
    """What the marker and the error bar of a point take."""
    x, y = _inches(axes, point.x, point.y, size)
    half = _inches(axes, point.x, point.y + point.spread, size)[1] - y
    return (x - MARKER, y - MARKER, x + MARKER, y + MARKER), (x - BAR, y - half, x + BAR, y + half)


def _text_box(axes: Axes, point: Point, side: tuple[int, int], size: tuple[float, float]) -> Box:
    x, y = _inches(axes, point.x, point.y, size)
    width, across, up = LETTER * len(point.text), *side
    if across:
        x += across * (MARKER + 0.05 + width / 2)
    y += up * (MARKER + 0.03 + LINE / 2)
    return x - width / 2, y - LINE / 2, x + width / 2, y + LINE / 2


def _overlap(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _outside(box: Box, size: tuple[float, float]) -> float:
    """The area of a box beyond the axes."""
    inside = _overlap(box, (0.0, 0.0, *size))
    return (box[2] - box[0]) * (box[3] - box[1]) - inside
