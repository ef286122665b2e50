"""Each task's relative change under each network: who pays for the mean. Bars, or for many tasks a strip of cells."""

from statistics import mean, stdev

import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from pipeline.report.network import Network
from pipeline.report.number_texts import percent_text
from pipeline.report.study import Study, distinct
from pipeline.report.style import INK, MANY, WIDTH, Drawing, panels, short, task_colours
from pipeline.report.widget import Widget, plain


def changes_figure(study: Study) -> Drawing:
    """Relative change of each task's metric against its single-task network, and its mean, Δ_MTL."""
    many = len(study.tasks) > MANY
    caption = (
        "Relative change of each task's metric against its single-task network, in percent, signed so that plus is"
        " better whichever way the metric points."
    )
    if many:
        caption += " In the png, brown: worse, green: better; the last column is the mean, which is Δ_MTL."
        if any(len(network.seeds) > 1 for network in study.networks):
            caption += " Hatched there: no larger than its standard deviation over seeds."
    else:
        caption += " Dashed: the mean, which is Δ_MTL."
    rows = [
        {"name": network.name, "task": task, "seed": seed, "change": change}
        for network in study.networks
        for task in study.tasks
        for seed, change in zip(network.seeds, _changes(study, network, task), strict=True)
    ]
    figure = (_strip if many else _bars)(study)
    widget = _widget(study)
    return Drawing(stem="changes", section="changes", caption=caption, figure=figure, rows=rows, widget=widget)


def _widget(study: Study) -> Widget:
    """Every distinct network's mean change and its deviation over seeds, of each task and of all."""
    return Widget(
        kind="changes",
        data={
            "tasks": study.tasks,
            "networks": [
                {"label": label, "delta": plain(mean(study.deltas(network)))}
                | {"changes": [_summary(_changes(study, network, task)) for task in study.tasks]}
                for network, label in distinct(study.networks)
            ],
        },
    )


def _summary(changes: list[float]) -> dict[str, float | None]:
    return {"mean": plain(mean(changes)), "spread": plain(stdev(changes)) if len(changes) > 1 else None}


def _bars(study: Study) -> Figure:
    pairs = distinct(study.networks)
    columns = min(len(pairs), 5)
    height = 1.0 + 0.24 * len(study.tasks)
    figure, axes = panels(len(pairs), columns=columns, size=(WIDTH / columns, height), sharex=True, sharey=True)
    colours = task_colours(study.tasks)
    for axis, (network, label) in zip(axes, pairs, strict=True):
        changes = {task: _changes(study, network, task) for task in study.tasks}
        values = [mean(changes[task]) for task in study.tasks]
        spreads = [stdev(changes[task]) if len(changes[task]) > 1 else 0.0 for task in study.tasks]
        error = spreads if any(spreads) else None
        axis.barh(range(len(values)), values, color=[colours[task] for task in study.tasks], xerr=error, height=0.66)
        for place, (value, spread) in enumerate(zip(values, spreads, strict=True)):
            axis.annotate(
                percent_text(value),
                (value + (spread if value >= 0 else -spread), place),
                xytext=(3 if value >= 0 else -3, 0),
                textcoords="offset points",
                ha="left" if value >= 0 else "right",
                va="center",
                fontsize=7,
            )
        delta = mean(study.deltas(network))
        axis.axvline(0, color=INK, linewidth=1)
        axis.axvline(delta, color=INK, linewidth=1, linestyle=(0, (3, 2)))
        axis.set_title(f"{short(label, 24)}\nmean {percent_text(delta)} %")
        axis.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(study.tasks)), [short(task) for task in study.tasks])
    axes[0].set_ylim(len(study.tasks) - 0.4, -0.6)
    axes[0].margins(x=0.28)
    figure.supxlabel("change against the single-task network on test, % (right is better)", fontsize=9)
    return figure


def _strip(study: Study) -> Figure:
    """A row of cells for each network, a column for each task; a few large changes do not set the colours."""
    pairs = distinct(study.networks)
    changes = [[_changes(study, network, task) for task in study.tasks] for network, _ in pairs]
    changes = [[*row, study.deltas(network)] for row, (network, _) in zip(changes, pairs, strict=True)]
    values = np.array([[mean(seeds) for seeds in row] for row in changes])
    end = float(np.quantile(np.abs(values), 0.95)) or 1.0
    figure, (axis,) = panels(1, columns=1, size=(WIDTH, 1.7 + 0.28 * len(pairs)))
    image = axis.imshow(values, cmap="BrBG", vmin=-end, vmax=end, aspect="auto")
    faint = []
    for i, row in enumerate(changes):
        for j, seeds in enumerate(row):
            if len(seeds) > 1 and abs(values[i, j]) <= stdev(seeds):
                faint.append(Rectangle((j - 0.5, i - 0.5), 1, 1))
            colour = "white" if abs(values[i, j]) > 0.7 * end else INK
            axis.text(j, i, percent_text(values[i, j]), ha="center", va="center", fontsize=_size(values), color=colour)
    axis.add_collection(PatchCollection(faint, facecolor="none", hatch="////", linewidth=0))
    axis.axvline(len(study.tasks) - 0.5, color="white", linewidth=3)
    names = [*(short(task) for task in study.tasks), "mean"]
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axis.set_yticks(range(len(pairs)), [short(label, 22) for _, label in pairs])
    axis.grid(visible=False)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axis, pad=0.01, aspect=12, extend="both")
    bar.set_label("change, %")
    if faint:
        hatched = Patch(facecolor="white", edgecolor=INK, hatch="////", label="within one deviation over seeds")
        figure.legend(handles=[hatched], loc="outside upper left")
    return figure


def _size(values: np.ndarray) -> float:
    """The type that fits into a cell of the strip."""
    return float(np.clip(230 / values.shape[1], 3.5, 7))


def _changes(study: Study, network: Network, task: str) -> list[float]:
    return [study.baselines[task].change(value) for value in network.test[task]]
