"""Shares that routers give to experts -> heat maps: a group of maps for each layer, all on one scale.

Letters: R rows (data sets or tasks), E experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pipeline.report.found_moe import ExpertLayer
from pipeline.report.style import INK, MUTED, WIDTH, panels, short
from pipeline.report.widget import Widget, plain

ACROSS = 4  # maps side by side
LETTER = 0.088  # width of a title's letter in inches
NUMBER = 0.105  # width of an expert's number in inches


@dataclass(frozen=True, kw_only=True)
class UsageMap:
    """One map: the experts' shares of each row's choices by their numbers, and which of them were removed."""

    title: str
    shares_RE: np.ndarray
    order_E: Sequence[int]
    removed_RE: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Use:
    """How one network's routers use the experts: shares [L][R][E], and what an expert tells of the row by layer."""

    label: str
    shares: Sequence[Sequence[Sequence[float]]]
    information: Sequence[float] = ()


def usage_widget(
    layers: Sequence[ExpertLayer], rows: Sequence[str], uses: Sequence[Use], *, at: int, row: str, most: float
) -> Widget:
    """Map uses of the same layers by the same rows, of which `at` is shown first, to maps that can be pruned.

    `row` is what a row is, `most` the most that an expert can tell of it.
    """
    return Widget(
        kind="experts",
        data={
            "row": row,
            "rows": list(rows),
            "layers": [
                {"name": layer.name, "location": layer.location, "experts": layer.experts, "top_k": layer.top_k}
                | {"weights": layer.expert_weights}
                for layer in layers
            ],
            "uses": [
                {"label": use.label, "information": [plain(value) for value in use.information]}
                | {"shares": [[[plain(share) for share in row] for row in layer] for layer in use.shares]}
                for use in uses
            ],
            "at": at,
            "most": plain(most),
        },
    )


def expert_order(shares_RE: np.ndarray) -> list[int]:
    """Map shares to the experts' numbers, ordered by the row that uses them most, and within a row by falling share."""
    return np.lexsort((-shares_RE.max(0), shares_RE.argmax(0))).tolist()


def shared_experts(shares_RE: np.ndarray) -> np.ndarray:
    """The experts [E] that at least two rows use as much as evenly spread choices would, or more."""
    return (shares_RE >= 1 / shares_RE.shape[1]).sum(0) > 1


def usage_maps(layers: Sequence[tuple[str, Sequence[UsageMap]]], rows: Sequence[str]) -> Figure:
    """Draw each layer's maps side by side, darker the more an expert is used; the bar names even use."""
    count = len(layers[0][1])
    across = count * max(1, min(len(layers), ACROSS // count))
    width = WIDTH / across
    figure, axes = panels(len(layers) * count, columns=across, size=(width, 0.72 + 0.19 * len(rows)), gap=0.03)
    maps = [(layer if place == 0 else "", one) for layer, group in layers for place, one in enumerate(group)]
    even = sorted({1 / one.shares_RE.shape[1] for _, one in maps})
    most = max(2 * even[-1], *(float(one.shares_RE.max()) for _, one in maps))
    for place, (axis, (layer, one)) in enumerate(zip(axes, maps, strict=True)):
        _map(axis, one, most, width)
        axis.set_title(f"{short(layer, int(width / LETTER))}\n{one.title}" if layer else one.title, fontsize=8.5)
        named = place % across == 0
        axis.set_yticks(range(len(rows)), [short(row) for row in rows] if named else [""] * len(rows), fontsize=7.5)
    _bar(figure, axes, even, most)
    return figure


def _map(axis: Axes, one: UsageMap, most: float, width: float) -> None:
    """Draw one map; experts that several rows share have their number in bold."""
    order = list(one.order_E)
    axis.imshow(one.shares_RE[:, order], vmin=0, vmax=most, cmap="YlGnBu", aspect="auto")
    gone = [Rectangle((e - 0.5, r - 0.5), 1, 1) for r, e in np.argwhere(one.removed_RE[:, order])]
    axis.add_collection(PatchCollection(gone, facecolor="white", hatch="//////", linewidth=0))
    if width / len(order) >= NUMBER * len(str(len(order) - 1)):
        axis.set_xticks(range(len(order)), list(map(str, order)), fontsize=6.5)
        for label, shared in zip(axis.get_xticklabels(), shared_experts(one.shares_RE)[order], strict=True):
            label.set(color=INK if shared else MUTED, fontweight="bold" if shared else "normal")
    else:
        axis.set_xticks([])
    for edge in range(len(one.shares_RE) - 1):
        axis.axhline(edge + 0.5, color="white", linewidth=1.5)
    axis.grid(visible=False)
    axis.tick_params(length=0, pad=2)
    axis.spines[:].set_visible(False)


def _bar(figure: Figure, axes: Sequence[Axes], even: Sequence[float], most: float) -> None:
    """One bar for all maps, with marks at nothing, at even use, and at the most."""
    height = figure.get_figheight()
    bar = figure.colorbar(
        axes[0].images[0], ax=axes, shrink=min(1.0, 2.2 / height), aspect=16, pad=0.01, anchor=(0.0, 1.0)
    )
    words = [f"{100 * share:.0f} %, even" for share in even]
    bar.set_ticks([0.0, *even, most], labels=["0", *words, f"{100 * most:.0f} %"])
    for share in even:
        bar.ax.axhline(share, color=INK, linewidth=1.2)
    bar.ax.tick_params(labelsize=7.5)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
