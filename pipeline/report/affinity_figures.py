"""Affinities -> heat maps and curves over depth.

Letters: T tasks, D locations.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.patches import Patch, Rectangle

from pipeline.report.study import Row, Study
from pipeline.report.style import INK, MANY, WIDTH, Drawing, panels, short, task_colours

KEYS = ("value", "ci_low", "ci_high", "null_high")


def affinity_maps(study: Study) -> Drawing:
    """Affinity of all pairs of tasks at each location, on one scale; pairs that the null reaches too are hatched."""
    value_DTT, low_DTT, high_DTT, null_DTT = _arrays(study)
    locations, count = value_DTT.shape[:2]
    columns = 4 if count <= 3 else 2
    side = WIDTH / 4 if count <= 3 else min(WIDTH / 2, 1.9 + 0.45 * count)
    figure, axes = panels(locations, columns=columns, size=(side, 0.88 * side))
    off = ~np.eye(count, dtype=bool)
    least = min(0.0, float(value_DTT[:, off].min()))
    image = None
    for d, axis in enumerate(axes):
        image = axis.imshow(np.where(off, value_DTT[d], np.nan), vmin=least, vmax=1, cmap="YlGnBu")
        _marks(axis, value_DTT[d], low_DTT[d], high_DTT[d], null_DTT[d], least)
        size = 8 if count <= MANY else 4.5
        names = [short(task, 14) for task in study.tasks]
        axis.set_xticks(range(count), names, rotation=40, ha="right", rotation_mode="anchor", fontsize=size)
        axis.set_yticks(range(count), names, fontsize=size)
        axis.set_title(f"location {d + 1}")
        axis.grid(visible=False)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    assert image is not None
    bar = figure.colorbar(image, ax=axes, shrink=0.5, aspect=30, pad=0.02)
    bar.set_label("affinity (Spearman)")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    faint = bool((value_DTT <= null_DTT)[:, off].any())
    if faint:
        hatched = Patch(facecolor="white", edgecolor=INK, hatch="////", label="not above the permutation null")
        figure.legend(handles=[hatched], loc="outside lower left")
    return Drawing(
        stem="affinity",
        section="affinity",
        caption="How alike the tasks' own networks represent the same images: Spearman correlation of their"
        " dissimilarity matrices, after each location."
        + (" Hatched pairs do not stand out from shuffled images." if faint else "")
        + (" Small print: bootstrap interval over images." if _has_interval(study.affinity) else ""),
        figure=figure,
        rows=study.affinity,
    )


def _marks(
    axis: Axes, value_TT: np.ndarray, low_TT: np.ndarray, high_TT: np.ndarray, null_TT: np.ndarray, least: float
) -> None:
    """Values and intervals in the cells, as long as they can be read there, and the hatching."""
    count = len(value_TT)
    faint = []
    for i in range(count):
        for j in range(count):
            if i == j:
                continue
            if value_TT[i, j] <= null_TT[i, j]:
                faint.append(Rectangle((j - 0.5, i - 0.5), 1, 1))
            if count > MANY:
                continue
            colour = "white" if (value_TT[i, j] - least) / (1 - least) > 0.5 else INK
            interval = count <= 8 and low_TT[i, j] < high_TT[i, j]
            middle = i - (0.1 if interval else 0)
            axis.text(j, middle, f"{value_TT[i, j]:.2f}", ha="center", va="center", color=colour, fontsize=8.5)
            if interval:
                text = f"{low_TT[i, j]:.2f}–{high_TT[i, j]:.2f}"
                axis.text(j, i + 0.24, text, ha="center", va="center", color=colour, fontsize=5.5)
    axis.add_collection(PatchCollection(faint, facecolor="none", hatch="////", linewidth=0))


def affinity_curves(study: Study) -> Drawing:
    """Affinity over depth (paper Fig. 4): a panel for each task, a line to every other; many tasks share one panel."""
    value_DTT, low_DTT, high_DTT, _ = _arrays(study)
    locations, count = value_DTT.shape[:2]
    depth = np.arange(1, locations + 1)
    if count > MANY:
        figure, (axis,) = panels(1, columns=1, size=(WIDTH, 4))
        i, j = np.triu_indices(count, 1)
        lines = [np.column_stack([depth, value_DTT[:, a, b]]) for a, b in zip(i, j, strict=True)]
        axis.add_collection(LineCollection(lines, colors="#b8c2cc", linewidths=0.5))
        axis.plot(depth, value_DTT[:, i, j].mean(1), color=INK, linewidth=2, label="mean of all pairs")
        axis.legend()
        axis.autoscale_view()
        axes = [axis]
    else:
        columns = min(count, 3 if count in (3, 5, 6, 9) else 4)
        figure, axes = panels(count, columns=columns, size=(WIDTH / columns, 2.5), sharex=True, sharey=True)
        colours = task_colours(study.tasks)
        for t, axis in enumerate(axes):
            for other, name in enumerate(study.tasks):
                if other == t:
                    continue
                axis.plot(depth, value_DTT[:, t, other], "o-", color=colours[name], markersize=3.5, linewidth=1.6)
                axis.fill_between(
                    depth, low_DTT[:, t, other], high_DTT[:, t, other], color=colours[name], alpha=0.14, linewidth=0
                )
            axis.set_title(f"{short(study.tasks[t])} with …", color=colours[study.tasks[t]])
        handles = [Patch(color=colours[task], label=short(task)) for task in study.tasks]
        figure.legend(handles=handles, loc="outside upper left", ncols=min(count, 6))
    for axis in axes:
        axis.set_xticks(depth)
    figure.supxlabel("location", fontsize=9)
    figure.supylabel("affinity", fontsize=9)
    return Drawing(
        stem="affinity-depth",
        section="affinity",
        caption="The same affinities over depth. Lines that fall tell where tasks begin to need features of their own."
        + (" Bands: bootstrap interval over images." if count <= MANY and _has_interval(study.affinity) else ""),
        figure=figure,
        rows=[row for row in study.affinity if study.tasks.index(row["task_a"]) < study.tasks.index(row["task_b"])],
    )


def _arrays(study: Study) -> tuple[np.ndarray, ...]:
    """The affinity rows as arrays [D, T, T]: value, interval, upper end of the null."""
    place = {task: index for index, task in enumerate(study.tasks)}
    locations = max(row["location"] for row in study.affinity)
    arrays = tuple(np.ones((locations, len(place), len(place))) for _ in KEYS)
    for row in study.affinity:
        for key, array in zip(KEYS, arrays, strict=True):
            array[row["location"] - 1, place[row["task_a"]], place[row["task_b"]]] = row[key]
    return arrays


def _has_interval(rows: Sequence[Row]) -> bool:
    return any(row["ci_low"] < row["ci_high"] for row in rows)
