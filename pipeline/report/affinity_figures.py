"""Affinities -> heat maps and curves over depth.

Letters: T tasks, D locations, P pairs of tasks.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from pipeline.report.study import Study, distinct
from pipeline.report.style import INK, MANY, PALE, TASK_COLOURS, WIDTH, Drawing, panels, short, task_colours
from pipeline.report.widget import Widget, plain

KEYS = ("value", "ci_low", "ci_high", "null_high")
PRINTED = 8  # tasks up to which a cell has room for the interval
PAIRS = 15  # pairs up to which each has a line of its own


def affinity_maps(study: Study) -> Drawing:
    """Affinity of all pairs of tasks at each location, on one scale; pairs that the null reaches too are hatched."""
    value_DTT, low_DTT, high_DTT, null_DTT = affinity_arrays(study)
    locations, count = value_DTT.shape[:2]
    columns, many = 4 if count <= 3 else 2, count > MANY
    side = WIDTH / 4 if count <= 3 else min(WIDTH / 2, 1.9 + 0.45 * count)
    figure, axes = panels(
        locations, columns=columns, size=(side, (1.05 if count <= 3 else 0.88) * side), sharex=many, sharey=many
    )
    off = ~np.eye(count, dtype=bool)
    values = value_DTT[:, off]
    # Cells without a number are read by their colour alone: there the scale spans no more than the values.
    least, most = (float(values.min()), float(values.max())) if many else (min(0.0, float(values.min())), 1.0)
    image = None
    for d, axis in enumerate(axes):
        image = axis.imshow(np.where(off, value_DTT[d], np.nan), vmin=least, vmax=most, cmap="YlGnBu")
        _marks(axis, value_DTT[d], low_DTT[d], high_DTT[d], null_DTT[d], least)
        size, angle = (5.5, 90) if many else (8, 40)
        names = [short(task, 18 if many else 14) for task in study.tasks]
        axis.set_xticks(range(count), names, rotation=angle, ha="right", rotation_mode="anchor", fontsize=size)
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
        + " Small print in the png: bootstrap interval over images." * (count <= PRINTED and _has_interval(study)),
        figure=figure,
        rows=study.affinity,
        widget=_widget(study),
    )


def _widget(study: Study) -> Widget:
    """Every pair of tasks once, by rows of the upper triangle, at each location; and the trees that part them."""
    pairs = np.triu_indices(len(study.tasks), 1)
    maps_DP = [[array_TT[pairs] for array_TT in array_DTT] for array_DTT in affinity_arrays(study)]
    return Widget(
        kind="affinity",
        data={
            "tasks": study.tasks,
            "maps": [
                {key: [plain(value) for value in array_P] for key, array_P in zip(KEYS, location, strict=True)}
                for location in zip(*maps_DP, strict=True)
            ],
            "interval": _has_interval(study),
            "trees": [
                {"label": label, "groups": study.search.chosen[network.name].groups}
                for network, label in distinct(study.trees)
            ],
        },
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
            interval = count <= PRINTED and low_TT[i, j] < high_TT[i, j]
            middle = i - (0.1 if interval else 0)
            axis.text(j, middle, f"{value_TT[i, j]:.2f}", ha="center", va="center", color=colour, fontsize=8.5)
            if interval:
                text = f"{low_TT[i, j]:.2f}–{high_TT[i, j]:.2f}"
                axis.text(j, i + 0.24, text, ha="center", va="center", color=colour, fontsize=5.5)
    axis.add_collection(PatchCollection(faint, facecolor="none", hatch="////", linewidth=0))


def affinity_curves(study: Study) -> Drawing:
    """Affinity over depth (paper Fig. 4): a panel for each task, a line to every other; many pairs share one panel."""
    arrays = affinity_arrays(study)
    depth = np.arange(1, len(arrays[0]) + 1)
    pairs = len(study.tasks) * (len(study.tasks) - 1) // 2
    figure, axes, words = (_all_pairs if pairs > PAIRS else _panel_per_task)(study, arrays, depth)
    for axis in axes:
        axis.set_xticks(depth)
    figure.supxlabel("location", fontsize=9)
    figure.supylabel("affinity", fontsize=9)
    return Drawing(
        stem="affinity-depth",
        section="affinity",
        caption="The same affinities over depth. Lines that fall tell where tasks begin to need features of their own."
        + words
        + (" Bands: bootstrap interval over images." if _has_interval(study) else ""),
        figure=figure,
        rows=[row for row in study.affinity if study.tasks.index(row["task_a"]) < study.tasks.index(row["task_b"])],
    )


def _panel_per_task(study: Study, arrays: tuple[np.ndarray, ...], depth: np.ndarray) -> tuple[Figure, list[Axes], str]:
    value_DTT, low_DTT, high_DTT, _ = arrays
    count = len(study.tasks)
    columns = min(count, 3 if count in (3, 5, 6) else 4)
    figure, axes = panels(count, columns=columns, size=(WIDTH / columns, 2.5), sharex=True, sharey=True)
    colours = task_colours(study.tasks)
    for t, axis in enumerate(axes):
        for other, name in enumerate(study.tasks):
            if other != t:
                axis.plot(depth, value_DTT[:, t, other], "o-", color=colours[name], markersize=3.5, linewidth=1.6)
                _band(axis, depth, low_DTT[:, t, other], high_DTT[:, t, other], colours[name])
        axis.set_title(f"{short(study.tasks[t])} with …", color=colours[study.tasks[t]])
    handles = [Patch(color=colours[task], label=short(task)) for task in study.tasks]
    figure.legend(handles=handles, loc="outside upper left", ncols=count)
    return figure, axes, ""


def _all_pairs(study: Study, arrays: tuple[np.ndarray, ...], depth: np.ndarray) -> tuple[Figure, list[Axes], str]:
    """A thin line for every pair, a thick one for their mean, and by name the pairs most and least alike at the end."""
    value_DTT, low_DTT, high_DTT, _ = arrays
    figure, (axis,) = panels(1, columns=1, size=(WIDTH, 4))
    i, j = np.triu_indices(len(study.tasks), 1)
    value_DP = value_DTT[:, i, j]
    lines = [np.column_stack([depth, value_DP[:, pair]]) for pair in range(len(i))]
    axis.add_collection(LineCollection(lines, colors=PALE, linewidths=0.5, alpha=0.6))
    for pair, colour, word in (
        (int(value_DP[-1].argmax()), TASK_COLOURS[0], "most"),
        (int(value_DP[-1].argmin()), TASK_COLOURS[1], "least"),
    ):
        a, b = i[pair], j[pair]
        label = f"{word} alike at the last location: {short(study.tasks[a])} and {short(study.tasks[b])}"
        axis.plot(depth, value_DP[:, pair], color=colour, linewidth=1.6, label=label)
        _band(axis, depth, low_DTT[:, a, b], high_DTT[:, a, b], colour)
    axis.plot(depth, value_DP.mean(1), color=INK, linewidth=2.5, label=f"mean of all {len(i)} pairs")
    axis.autoscale_view()
    figure.legend(loc="outside upper left", ncols=3)
    return figure, [axis], " A thin line is a pair."


def _band(axis: Axes, depth: np.ndarray, low_D: np.ndarray, high_D: np.ndarray, colour: str) -> None:
    axis.fill_between(depth, low_D, high_D, color=colour, alpha=0.14, linewidth=0)


def affinity_arrays(study: Study) -> tuple[np.ndarray, ...]:
    """The affinity rows as arrays [D, T, T]: value, interval, upper end of the null."""
    place = {task: index for index, task in enumerate(study.tasks)}
    locations = max(row["location"] for row in study.affinity)
    arrays = tuple(np.ones((locations, len(place), len(place))) for _ in KEYS)
    for row in study.affinity:
        for key, array in zip(KEYS, arrays, strict=True):
            array[row["location"] - 1, place[row["task_a"]], place[row["task_b"]]] = row[key]
    return arrays


def _has_interval(study: Study) -> bool:
    return any(row["ci_low"] < row["ci_high"] for row in study.affinity)
