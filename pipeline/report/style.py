"""How figures look, the same everywhere: type, colours of tasks and networks, panels."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from pipeline.report.network import SINGLE, Network, Row
from pipeline.report.widget import Widget

INK, MUTED, PALE, GRID = "#1f2933", "#7b8794", "#b8c2cc", "#e4e7eb"
WIDTH = 10.5  # inches; the page shows them at about 100 pixels each
MANY = 12  # tasks from which on a figure leaves out its finer print
# Okabe and Ito's colours in an order that keeps neighbours apart; yellow and black give way to an ochre and a grey.
TASK_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5C00", "#5F6B7A")
RAMPS = ("viridis_r", "OrRd", "PuRd")  # of the networks, one for each strategy
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9aa5b1",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "hatch.linewidth": 0.6,
    "hatch.color": "#52606d",
    "text.parse_math": False,  # a class may be named $5
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure with its name (of the png and the csv), its section of the page, its caption and its data.

    Where it has a widget, the page shows that in the picture's place, and the picture where scripts do not run.
    """

    stem: str
    section: str
    caption: str
    figure: Figure
    rows: Sequence[Row] = field(default=())
    widget: Widget | None = None


def task_colours(tasks: Sequence[str]) -> dict[str, str]:
    """Map tasks to colours by their place in the study; the colours repeat after eight tasks."""
    return {task: TASK_COLOURS[index % len(TASK_COLOURS)] for index, task in enumerate(tasks)}


def network_colours(networks: Sequence[Network]) -> dict[str, str]:
    """Map networks to a ramp from light to dark for each strategy; the single-task networks are black."""
    colours = {SINGLE: INK}
    for place, strategy in enumerate(dict.fromkeys(network.strategy for network in networks)):
        names = [network.name for network in networks if network.strategy == strategy]
        ramp, last = colormaps[RAMPS[place % len(RAMPS)]], max(1, len(names) - 1)
        colours |= {name: to_hex(ramp(0.25 + 0.7 * index / last)) for index, name in enumerate(names)}
    return colours


def line_style(network: Network) -> str:
    """Full lines for trees of a budget, dotted and dashed ones for the two extremes."""
    return {"shared": ":", "split": "--"}.get(network.name, "-")


def panels(
    count: int,
    *,
    columns: int,
    size: tuple[float, float],
    sharex: bool = False,
    sharey: bool = False,
    gap: float = 0.02,
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels of a size in inches, row by row; `gap` is the share of height between rows."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(columns * size[0], rows * size[1]), layout=ConstrainedLayoutEngine(hspace=gap))
    grid = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    axes = list(grid.flat)
    for spare in axes[count:]:
        spare.set_visible(False)
    return figure, axes[:count]


def short(text: str, length: int = 18) -> str:
    """A name that fits beside an axis."""
    return text if len(text) <= length else text[: length - 1] + "…"
