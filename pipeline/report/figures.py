"""Results -> figures of what sharing costs and gains: parameters against Δ_MTL, learning curves, changes per task."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import mean, stdev

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pipeline.report.affinity_figures import affinity_curves, affinity_maps
from pipeline.report.study import SINGLE, Baseline, Network, Row, Study
from pipeline.report.style import (
    INK,
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
from pipeline.report.tables import percent_text
from pipeline.report.tree_figure import tree_figure

DELTA = r"$\Delta_\mathrm{MTL}$"
MARKERS = {"shared": "s", "split": "D"}


def draw_figures(study: Study) -> Iterator[Drawing]:
    """Map a study to its figures, in the order of the page."""
    with rc_context(STYLE):
        yield parameters_figure(study)
        yield front_figure(study)
        if len(study.tasks) > 1:
            yield affinity_maps(study)
            yield affinity_curves(study)
        if any(network.groups for network in study.networks):
            yield tree_figure(study)
        yield learning_curves(study)
        yield change_bars(study)


def parameters_figure(study: Study) -> Drawing:
    """Parameters against Δ_MTL, as the paper's Fig. 5; the trees of the budgets are joined by rising budget."""
    figure, (axes,) = panels(1, columns=1, size=(WIDTH, 4.2))
    colours = network_colours(study.networks)
    total = sum(row.params for row in study.baselines.values()) / 1e6
    axes.axhline(0, color=INK, linewidth=1)
    axes.plot(total, 0, marker="x", color=INK, linestyle="none", zorder=6)
    places, rows = [], []
    for network, label in study.distinct():
        deltas, val = study.deltas(network), mean(study.deltas(network, "val"))
        spread = stdev(deltas) if len(deltas) > 1 else 0.0
        x, y = network.params / 1e6, mean(deltas)
        axes.errorbar(x, y, yerr=spread or None, color=colours[network.name], capsize=3, zorder=3)
        axes.plot(x, y, MARKERS.get(network.name, "o"), color=colours[network.name], markersize=9, zorder=4)
        axes.plot(x, val, "o", markerfacecolor="white", markeredgecolor=MUTED, markersize=5, zorder=2)
        places.append((x, y, label))
    for network in study.networks:
        for seed, delta, val in zip(network.seeds, study.deltas(network), study.deltas(network, "val"), strict=True):
            rows.append(
                {"name": network.name, "strategy": network.strategy, "seed": seed, "params": network.params}
                | {"delta_mtl": delta, "delta_mtl_val": val}
            )
    path = sorted({(n.params / 1e6, mean(study.deltas(n))) for n in study.networks if n.request})
    axes.plot([x for x, _ in path], [y for _, y in path], color=MUTED, linewidth=1.2, zorder=1)
    _label(axes, places)
    handles = [
        Line2D([], [], color=MUTED, marker="o", markerfacecolor=INK, markeredgecolor=INK, label="chosen per budget"),
        Line2D([], [], color=INK, marker="s", linestyle="none", label="fully shared"),
        Line2D([], [], color=INK, marker="D", linestyle="none", label="fully split"),
        Line2D([], [], color=INK, marker="x", linestyle="none", label="single-task networks"),
        Line2D([], [], markeredgecolor=MUTED, markerfacecolor="white", marker="o", color="none", label="on validation"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=5)
    axes.set_xlabel("parameters, millions")
    axes.set_ylabel(f"{DELTA} on test, %", parse_math=True)
    axes.margins(x=0.08, y=0.18)
    return Drawing(
        stem="params-delta",
        section="budget",
        caption="Parameters against Δ_MTL on test. The line joins the trees chosen for rising budgets; 0 is the set of"
        " single-task networks. Hollow: Δ_MTL on validation, from which the epoch was picked."
        " Bars, where there are several seeds: one standard deviation.",
        figure=figure,
        rows=rows,
    )


def front_figure(study: Study) -> Drawing:
    """Parameters against the clustering cost of every tree on the Pareto front, the trained ones marked."""
    figure, (axes,) = panels(1, columns=1, size=(WIDTH, 3.4))
    colours = network_colours(study.networks)
    groups = {str(row["groups"]).replace(" ", ""): row for row in study.front}
    points = sorted((row["params"] / 1e6, row["cost"]) for row in study.front)
    axes.plot([x for x, _ in points], [y for _, y in points], "o", color="#b8c2cc", markersize=5)
    axes.step([x for x, _ in points], [y for _, y in points], where="post", color="#b8c2cc", linewidth=1, zorder=1)
    places, names = [], {}
    for network, label in study.distinct():
        key = str([list(row) for row in network.groups]).replace(" ", "")
        if key in groups:
            x, y = groups[key]["params"] / 1e6, groups[key]["cost"]
            axes.plot(x, y, MARKERS.get(network.name, "o"), color=colours[network.name], markersize=9, zorder=3)
            places.append((x, y, label))
            names[key] = label
    _label(axes, places)
    axes.set(xlabel="parameters, millions", ylabel="dissimilarity cost")
    axes.margins(x=0.06, y=0.15)
    rows = [
        {"groups": row["groups"], "params": row["params"], "flops": row["flops"], "cost": row["cost"]}
        | {"method": row["method"], "optimal": row["optimal"], "chosen": names.get(key, "")}
        for key, row in groups.items()
    ]
    proved = all(row["optimal"] for row in study.front)
    return Drawing(
        stem="front",
        section="budget",
        caption=f"Every tree on the Pareto front of size against dissimilarity cost ({len(points)} trees,"
        f" {'proved optimal' if proved else 'found, not proved optimal'}). Coloured: the trees that were trained. No"
        " tree of equal or smaller size has a lower cost than those on the line.",
        figure=figure,
        rows=rows,
    )


def learning_curves(study: Study) -> Drawing:
    """The validation metric of each task by epoch: single-task network, shared networks; the kept epoch is a dot."""
    columns = 3 if len(study.tasks) <= MANY else 5
    size = (WIDTH / max(2, min(columns, len(study.tasks))), 7.5 / columns)
    figure, axes = panels(len(study.tasks), columns=columns, size=size)
    rows = [row for row in study.trials if row["split"] == "val"]
    curves: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        curves[row["task"], row["name"]][row["epoch"]].append(row["value"])
    colours = network_colours(study.networks)
    lines = [(SINGLE, "single-task", "-", None)]
    lines += [(network.name, label, line_style(network), network) for network, label in study.distinct()]
    for axis, (task, baseline) in zip(axes, study.baselines.items(), strict=True):
        for name, label, style, network in lines:
            curve = curves[task, name]
            epochs, values = sorted(curve), [mean(curve[epoch]) for epoch in sorted(curve)]
            axis.plot(epochs, values, style, color=colours[name], linewidth=1.6, label=label)
            if any(len(curve[epoch]) > 1 for epoch in epochs):
                low, high = ([pick(curve[epoch]) for epoch in epochs] for pick in (min, max))
                axis.fill_between(epochs, low, high, color=colours[name], alpha=0.15, linewidth=0)
            kept = [(baseline.epoch, baseline.val)]
            if network is not None:
                kept = list(zip(network.epochs, network.val[task], strict=True))
            axis.plot(*zip(*kept, strict=True), "o", color=colours[name], markersize=4.5)
        axis.axhline(baseline.trivial_val, color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)), label="trivial predictor")
        axis.set_ylim(*_limits(baseline, [row for row in rows if row["task"] == task]))
        axis.set_title(
            short(f"{task}: {baseline.metric} {baseline.arrow}", 100 // columns), color=task_colours(study.tasks)[task]
        )
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in axes[-columns:]:
        axis.set_xlabel("epoch")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3 if len(axes) == 1 else 6)
    return Drawing(
        stem="learning-curves",
        section="curves",
        caption="Validation metric after each epoch; the dot is the epoch whose weights were kept. Values far beyond"
        " the trivial predictor are cut off. With several seeds: mean, and band from least to greatest.",
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


def change_bars(study: Study) -> Drawing:
    """Each task's relative change under each network: who pays for the mean."""
    pairs = study.distinct()
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
    rows = [
        {"name": network.name, "task": task, "seed": seed, "change": change}
        for network in study.networks
        for task in study.tasks
        for seed, change in zip(network.seeds, _changes(study, network, task), strict=True)
    ]
    return Drawing(
        stem="changes",
        section="changes",
        caption="Relative change of each task's metric against its single-task network, signed so that right is better"
        " whichever way the metric points. Dashed: the mean, which is Δ_MTL.",
        figure=figure,
        rows=rows,
    )


def _changes(study: Study, network: Network, task: str) -> list[float]:
    return [study.baselines[task].change(value) for value in network.test[task]]


def _label(axes: Axes, places: Sequence[tuple[float, float, str]]) -> None:
    """Write names beside points, above and below in turn from left to right, so that neighbours keep apart."""
    for index, (x, y, label) in enumerate(sorted(places)):
        above = index % 2 == 0
        axes.annotate(
            label,
            (x, y),
            xytext=(0, 10 if above else -10),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            fontsize=8.5,
            fontweight="bold",
            zorder=5,
        )
