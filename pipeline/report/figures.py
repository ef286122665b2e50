"""Results -> the figures of the page in its order; here learning curves and changes per task."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import mean

from matplotlib import rc_context
from matplotlib.ticker import MaxNLocator

from pipeline.report.affinity_figures import affinity_curves, affinity_maps
from pipeline.report.budget_figures import cost_figure, front_figure, parameters_figure
from pipeline.report.change_figures import changes_figure
from pipeline.report.network import SINGLE, Row
from pipeline.report.pareto import pareto_figure
from pipeline.report.study import Baseline, Study, distinct
from pipeline.report.style import (
    MANY,
    MUTED,
    STYLE,
    WIDTH,
    Drawing,
    line_style,
    network_colours,
    panels,
    short,
    task_colours,
)
from pipeline.report.tree_figure import tree_figure


def draw_figures(study: Study) -> Iterator[Drawing]:
    """Map a study to its figures, in the order of the page."""
    with rc_context(STYLE):
        yield pareto_figure(study)
        yield parameters_figure(study)
        if len(study.trained.trees) > 1:
            yield cost_figure(study)
        if study.front:
            yield front_figure(study)
        if study.affinity and len(study.tasks) > 1:
            yield affinity_maps(study)
            yield affinity_curves(study)
        yield tree_figure(study)
        for chapter in study.chapters:
            yield from chapter.drawings()
        yield learning_curves(study)
        yield changes_figure(study)


def learning_curves(study: Study) -> Drawing:
    """The validation metric of each task by epoch: single-task network, shared networks; the kept epoch is a dot."""
    many = len(study.tasks) > MANY
    columns = 8 if many else 3
    size = (WIDTH / max(2, min(columns, len(study.tasks))), 1.25 if many else 2.5)
    figure, axes = panels(len(study.tasks), columns=columns, size=size, sharex=many)
    rows = [row for row in study.trials if row["split"] == "val"]
    curves: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        curves[row["task"], row["name"]][row["epoch"]].append(row["value"])
    colours = network_colours(study.networks)
    lines = [(SINGLE, "single-task", "-", None)]
    lines += [(network.name, label, line_style(network), network) for network, label in distinct(study.trees)]
    for axis, (task, baseline) in zip(axes, study.baselines.items(), strict=True):
        for name, label, style, network in lines:
            curve = curves[task, name]
            epochs, values = sorted(curve), [mean(curve[epoch]) for epoch in sorted(curve)]
            axis.plot(epochs, values, style, color=colours[name], linewidth=1 if many else 1.6, label=label)
            if any(len(curve[epoch]) > 1 for epoch in epochs):
                low, high = ([pick(curve[epoch]) for epoch in epochs] for pick in (min, max))
                axis.fill_between(epochs, low, high, color=colours[name], alpha=0.15, linewidth=0)
            kept = [(baseline.epoch, baseline.val)]
            if network is not None:
                kept = list(zip(network.epochs, network.val[task], strict=True))
            axis.plot(*zip(*kept, strict=True), "o", color=colours[name], markersize=2.5 if many else 4.5)
        axis.axhline(baseline.trivial_val, color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)), label="trivial predictor")
        axis.set_ylim(*_limits(baseline, [row for row in rows if row["task"] == task]))
        title = short(task, 20) if many else short(f"{task}: {baseline.metric} {baseline.arrow}", 33)
        axis.set_title(title, color=task_colours(study.tasks)[task], fontsize=7 if many else None)
        axis.xaxis.set_major_locator(MaxNLocator(3 if many else "auto", integer=True))
        if many:
            axis.yaxis.set_major_locator(MaxNLocator(3))
            axis.tick_params(labelsize=6, pad=1.5)
    figure.supxlabel("epoch", fontsize=9)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3 if len(axes) == 1 else 6)
    return Drawing(
        stem="learning-curves",
        section="curves",
        caption="Validation metric after each epoch; the dot is the epoch whose weights were kept. Values far beyond"
        " the trivial predictor are cut off. With several seeds: mean, and band from least to greatest."
        + (" The metrics are those of the table." if many else ""),
        figure=figure,
        rows=[{key: row[key] for key in ("name", "task", "metric", "seed", "epoch", "value")} for row in rows],
    )


def _limits(baseline: Baseline, rows: Sequence[Row]) -> tuple[float, float]:
    """An axis that holds last values and the trivial predictor, and earlier values unless they would flatten these."""
    last = max(row["epoch"] for row in rows)
    ends = [row["value"] for row in rows if row["epoch"] == last] + [baseline.val, baseline.trivial_val]
    low, high = min(ends), max(ends)
    room = 0.5 * (high - low)
    near = [row["value"] for row in rows if low - room <= row["value"] <= high + room]
    low, high = min([low, *near]), max([high, *near])
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad, high + pad
