"""All networks of a study against what they cost -> a figure, its data, and the widget with a slider for the budget."""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from statistics import mean, stdev
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.report.choice import contenders, limits
from pipeline.report.network import Contender
from pipeline.report.noise import Noise, noise_of
from pipeline.report.point_labels import Point, label_points
from pipeline.report.study import Study
from pipeline.report.style import INK, MUTED, PALE, WIDTH, Drawing, panels
from pipeline.report.widget import Widget

MARKS = "oD^svPX*"  # of the groups, in their order
AXES = {"params": "parameters", "macs": "multiply-adds", "seconds": "training, seconds"}
LABELLED = 24  # networks up to which points bear their names
DIGITS = 4  # of percentages in the page


def pareto_figure(study: Study) -> Drawing:
    """Parameters against Δ_MTL of every network for all tasks; a line joins those that no smaller one beats."""
    found = contenders(study)
    noise = noise_of(study, [item.network for item in found])
    return Drawing(
        stem="pareto",
        section="choice",
        caption="Every network for all tasks, of every strategy, and what they are compared with: size against Δ_MTL"
        " on test. Line: the Pareto front, networks of which no smaller one did as well on test; pale, hollow: others."
        f" {_seed_words(found)}{_missing_words(study)} Training time is that of one seed, with the base that TAPS and"
        " adapted networks start from, without settings that were tried and not kept; multiply-adds are of one image"
        " for all tasks.",
        figure=_figure(study, found),
        rows=[row for item in found for row in _rows(study, item)],
        widget=Widget(kind="pareto", data=pareto_data(study, found, noise)),
    )


def pareto_data(study: Study, found: Sequence[Contender], noise: Noise) -> dict[str, Any]:
    """What the widget draws; `factor` makes leads out of numbers of seeds, as `Noise` says."""
    return {
        "axes": AXES,
        "tasks": study.tasks,
        "noise": {"factor": noise.factor},
        "budgets": [
            {"label": label, "params": most.get("params"), "macs": most["flops"] / 2 if "flops" in most else None}
            for label, most in limits(study)
        ],
        "points": [_point(study, item) for item in found],
        "others": [
            {"params": tree.params, "macs": tree.flops / 2, "test": mean(tree.delta_mtl)}
            for tree in study.trained.trees
            if tree.groups not in {chosen.groups for chosen in study.search.chosen.values()}
        ],
    }


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Map (cost, value) to the places of those than which no other costs as little and is worth as much, by cost."""
    best, kept = float("-inf"), []
    for place in sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1])):
        if points[place][1] > best:
            best = points[place][1]
            kept.append(place)
    return kept


def costs(item: Contender) -> Mapping[str, float]:
    """What it costs, one number for each of AXES; training time of one seed."""
    network = item.network
    seconds = network.seconds / len(network.seeds)
    return {"params": network.params, "macs": network.flops / 2, "seconds": seconds}


def _point(study: Study, item: Contender) -> dict[str, Any]:
    network, deltas = item.network, study.deltas(item.network)
    changes = [mean(map(row.change, network.test[task])) for task, row in study.baselines.items()]
    return {
        "name": network.name,
        "label": network.label,
        "group": item.group,
        "jobs": list(network.keys),
        "seeds": len(network.seeds),
        **costs(item),
        "test": round(mean(deltas), DIGITS),
        "spread": round(stdev(deltas), DIGITS) if len(deltas) > 1 else None,
        "val": round(mean(study.deltas(network, "val")), DIGITS),
        "changes": [round(value, DIGITS) if isfinite(value) else None for value in changes],
        "sketch": item.sketch,
    }


def _figure(study: Study, found: Sequence[Contender]) -> Figure:
    figure, (axes,) = panels(1, columns=1, size=(WIDTH, 4.6))
    axes.axhline(0, color=INK, linewidth=0.8)
    places = [(item.network.params / 1e6, mean(study.deltas(item.network))) for item in found]
    best = front(places)
    axes.plot(*zip(*(places[index] for index in best), strict=True), color=MUTED, linewidth=1.2, zorder=2)
    marks = dict(zip(dict.fromkeys(item.group for item in found), MARKS, strict=False))
    labels = []
    for index, (item, (x, y)) in enumerate(zip(found, places, strict=True)):
        deltas, colour = study.deltas(item.network), INK if index in best else PALE
        spread = stdev(deltas) if len(deltas) > 1 else 0.0
        axes.errorbar(x, y, yerr=spread or None, fmt=marks[item.group], color=colour, markersize=7, capsize=2, zorder=3)
        shown = index in best or len(found) <= LABELLED
        labels.append(Point(x=x, y=y, text=item.network.label if shown else "", spread=spread))
    axes.margins(x=0.08, y=0.14)
    if max(x for x, _ in places) > 8 * min(x for x, _ in places):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    label_points(axes, labels)
    handles = [Line2D([], [], color=INK, marker=m, linestyle="none", label=group) for group, m in marks.items()]
    handles.append(Line2D([], [], color=MUTED, label="Pareto front"))
    figure.legend(handles=handles, loc="outside upper left", ncols=6)
    axes.set_xlabel("parameters, millions")
    axes.set_ylabel(r"$\Delta_\mathrm{MTL}$ on test, %", parse_math=True)
    return figure


def _rows(study: Study, item: Contender) -> Iterator[dict[str, Any]]:
    network = item.network
    pairs = zip(study.deltas(network), study.deltas(network, "val"), strict=True)
    for seed, (test, val) in zip(network.seeds, pairs, strict=True):
        yield {
            "name": network.name,
            "label": network.label,
            "group": item.group,
            **costs(item),
            "seed": seed,
            "delta_mtl": test,
            "delta_mtl_val": val,
            "jobs": " ".join(network.keys),
        }


def _missing_words(study: Study) -> str:
    """Which strategies were trained, but have no network for all tasks, so that their Δ_MTL would be another mean."""
    names = [chapter.label for chapter in study.chapters if not chapter.networks()]
    return f" Not here, since for some of the tasks alone: {' and '.join(names)}." if names else ""


def _seed_words(found: Sequence[Contender]) -> str:
    if any(len(item.network.seeds) > 1 for item in found):
        return "Mean over seeds; bars: one standard deviation, where there are several seeds."
    return "One seed each."
