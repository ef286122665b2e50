"""How compared methods look where what they cost is drawn against what they reach: markers, colours, the axis."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from pipeline.report.style import INK, MUTED, TASK_COLOURS

MARKS = "sD^vP*Xph<>d"
WIDE = 20.0  # the largest cost over the smallest from which on the axis is logarithmic


def look(index: int) -> tuple[str, str]:
    """The marker and the colour of a method by its place: ink and grey first, then colours that tasks have too."""
    return MARKS[index % len(MARKS)], (INK, MUTED, *TASK_COLOURS)[index % (len(TASK_COLOURS) + 2)]


def scale_costs(axis: Axes, costs: Sequence[float]) -> None:
    """A logarithmic axis where costs are far apart; nothing at all, as a feature extractor adds, has its place too."""
    some = [cost for cost in costs if cost > 0]
    if not some or max(some) <= WIDE * min(some):
        return
    if min(costs) > 0:
        axis.set_xscale("log")
    else:
        axis.set_xscale("symlog", linthresh=min(some), linscale=0.5)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
