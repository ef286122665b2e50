"""Trained trees and the Pareto front -> figures of size, cost and Δ_MTL."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, cycle
from statistics import mean, stdev

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pipeline.report.found_trees import Groups, TrainedTree, TrainedTrees, gap
from pipeline.report.number_texts import large_text, number_text, p_text
from pipeline.report.point_labels import Point, label_points
from pipeline.report.study import Row, Study, distinct
from pipeline.report.style import INK, MUTED, PALE, WIDTH, Drawing, network_colours, panels

DELTA = r"$\Delta_\mathrm{MTL}$"
MARKERS = {"shared": "s", "split": "D"}
FURTHER = "^vP"  # of the strategies beside the trees
UNITS = {"params": ("parameters, millions", 1e6), "flops": ("multiply-adds, millions", 2e6)}  # name, and divisor
CHANCE = 0.05  # p from which on a correlation counts as nothing


def parameters_figure(study: Study) -> Drawing:
    """Parameters against Δ_MTL of every trained tree, as the paper's Fig. 5; rising budgets are joined."""
    figure, (axes,) = panels(1, columns=1, size=(WIDTH, 4.4))
    axes.axhline(0, color=INK, linewidth=1)
    axes.plot(sum(row.params for row in study.baselines.values()) / 1e6, 0, marker="x", color=INK, linestyle="none")
    named = _draw_trees(axes, study, {tree.groups: tree.params / 1e6 for tree in study.trained.trees})
    points = {tree.groups: (tree.params / 1e6, mean(tree.delta_mtl)) for tree in study.trained.trees}
    path = [points[tree.groups] for tree in sorted(study.search.asked, key=lambda tree: tree.budget)]
    axes.plot([x for x, _ in path], [y for _, y in path], color=MUTED, linewidth=1.2, zorder=2.5)
    for tree in study.trained.trees:
        if tree.groups in _labels(study):
            val = mean(tree.delta_mtl_val)
            axes.plot(tree.params / 1e6, val, "o", mfc="white", mec=MUTED, markersize=5, zorder=2.4)
    further, further_handles = _draw_further(axes, study)
    label_points(axes, [*named, *further])
    handles = [
        Line2D([], [], color=MUTED, marker="o", markerfacecolor=INK, markeredgecolor=INK, label="chosen per budget"),
        Line2D([], [], color=INK, marker="s", linestyle="none", label="fully shared"),
        Line2D([], [], color=INK, marker="D", linestyle="none", label="fully split"),
        Line2D([], [], color=INK, marker="x", linestyle="none", label="single-task networks"),
        Line2D([], [], mec=MUTED, mfc="white", marker="o", color="none", label="chosen, on validation"),
        Line2D([], [], color=PALE, marker="o", linestyle="none", label="other trained trees"),
    ]
    figure.legend(handles=handles + further_handles, loc="outside upper left", ncols=6)
    axes.set_xlabel("parameters, millions")
    axes.set_ylabel(f"{DELTA} on test, %", parse_math=True)
    return Drawing(
        stem="params-delta",
        section="budget",
        caption=f"Parameters against Δ_MTL on test: {trained_words(study.trained)}. The line joins the trees chosen for"
        " rising budgets; 0 is the set of single-task networks. Hollow: Δ_MTL on validation, from which the epoch was"
        f" picked.{_further_words(study)} {_spread_words(study)}",
        figure=figure,
        rows=[row | {"delta_mtl": delta, "delta_mtl_val": val, "job": job} for row, delta, val, job in _runs(study)]
        + list(_further_rows(study)),
    )


def cost_figure(study: Study) -> Drawing:
    """Tree cost against Δ_MTL of every trained tree: whether the cost that trees are chosen by foretells the result."""
    figure, (axes,) = panels(1, columns=1, size=(WIDTH, 4))
    axes.axhline(0, color=INK, linewidth=1)
    label_points(axes, _draw_trees(axes, study, {tree.groups: tree.cost for tree in study.trained.trees}))
    axes.set_xlabel("dissimilarity cost of the tree")
    axes.set_ylabel(f"{DELTA} on test, %", parse_math=True)
    return Drawing(
        stem="cost-delta",
        section="budget",
        caption=f"The cost that trees are chosen by against Δ_MTL on test: {trained_words(study.trained)}, the chosen"
        f" ones coloured. {correlation_words(study.trained)} {_spread_words(study)}",
        figure=figure,
        rows=[
            _record(study, tree)
            | {"delta_mtl": mean(tree.delta_mtl), "delta_mtl_std": _spread(tree)}
            | {"delta_mtl_val": mean(tree.delta_mtl_val), "seeds": len(tree.jobs), "jobs": " ".join(tree.jobs)}
            for tree in study.trained.trees
        ],
    )


def trained_words(trained: TrainedTrees) -> str:
    """How many trees were trained, of how many."""
    if trained.exhaustive:
        beside = " and the fully split one" if len(trained.trees) > trained.trees_in_all else ""
        return f"all {trained.trees_in_all} trees that there are{beside}"
    return f"the {len(trained.trees)} trees that were trained, of {large_text(trained.trees_in_all)}"


def correlation_words(trained: TrainedTrees) -> str:
    """Map the rank correlation of cost and Δ_MTL to what it says, and to what it does not."""
    if trained.spearman is None or trained.p_value is None:
        return f"{len(trained.trees)} trees are too few for a rank correlation: nothing follows from this."
    text = f"Spearman's rank correlation {number_text(trained.spearman)} ({p_text(trained.p_value)} by permutation"
    if trained.spearman_val is not None:
        text += f"; on validation {number_text(trained.spearman_val)}"
    text += "): "
    if trained.p_value > CHANCE:
        side = "worse" if trained.spearman > 0 else "better"
        return text + f"chance often gives as much, so this shows no relation; here trees of lower cost did {side}."
    if trained.spearman > 0:
        return text + "trees of lower cost did worse, the opposite of what the search takes for granted."
    return text + f"trees of lower cost did better. Cost falls as trees grow: {_same_size_words(trained)}."


def _same_size_words(trained: TrainedTrees) -> str:
    if trained.same_size is None or trained.same_size_p is None:
        return "size may explain it"
    text = f"among trees of equal size it is {number_text(trained.same_size)} ({p_text(trained.same_size_p)})"
    return text if trained.same_size_p <= CHANCE else f"{text}, so size may explain part of it"


def front_figure(study: Study) -> Drawing:
    """Budget against clustering cost of every tree on the Pareto front, with the proved bound under it."""
    figure, (axes,) = panels(1, columns=1, size=(WIDTH, 3.4))
    name, divisor = UNITS[study.search.unit]
    front = sorted(study.front, key=lambda row: row["budget"])
    xs = [row["budget"] / divisor for row in front]
    axes.step(xs, [row["cost"] for row in front], "o-", where="post", color=PALE, linewidth=1, markersize=5, zorder=1)
    proved = all(row["optimal"] for row in front)
    if not proved:
        # A bound proved for a budget holds for every smaller one: the line goes back from each point, not on.
        bounds = list(accumulate((row["lower_bound"] for row in reversed(front)), max))[::-1]
        axes.step(xs, bounds, where="pre", color=INK, linewidth=0.8, label="proved: no tree costs less")
        axes.legend()
    colours, labels = network_colours(study.networks), _labels(study)
    points = []
    for groups, label in labels.items():
        tree = next(tree for tree in study.search.chosen.values() if tree.groups == groups)
        points.append(Point(x=tree.budget / divisor, y=tree.cost, text=label))
        marker = MARKERS.get(tree.name, "o")
        axes.plot(points[-1].x, tree.cost, marker, color=colours[tree.name], markersize=9, zorder=3)
    axes.set(xlabel=name, ylabel="dissimilarity cost")
    axes.margins(x=0.06, y=0.15)
    label_points(axes, points)
    keys = ("groups", "params", "flops", "budget", "cost", "lower_bound", "method", "optimal")
    written = {str([list(row) for row in groups]).replace(" ", ""): label for groups, label in labels.items()}
    return Drawing(
        stem="front",
        section="budget",
        caption=f"The trees of least dissimilarity cost found for each budget ({len(front)} trees, {_proof(front)})."
        " Coloured: the trees that were chosen.",
        figure=figure,
        rows=[
            {key: row[key] for key in keys} | {"chosen": written.get(row["groups"].replace(" ", ""), "")}
            for row in front
        ],
    )


def _proof(front: Sequence[Row]) -> str:
    if all(row["optimal"] for row in front):
        return "proved optimal: no tree of equal or smaller size costs less"
    open_points = [row for row in front if not row["optimal"]]
    largest = max(gap(row["cost"], row["lower_bound"]) for row in open_points)
    return f"{len(open_points)} not proved optimal; at most {largest:.1f} % of a tree's cost might still be saved"


def _draw_trees(axes: Axes, study: Study, xs: dict[Groups, float]) -> list[Point]:
    """Draw a dot for each trained tree, grey or in its network's colour; give back where the chosen ones stand."""
    trees, labels, colours = study.trained.trees, _labels(study), network_colours(study.networks)
    names = {tree.groups: tree.name for tree in reversed(list(study.search.chosen.values()))}
    axes.scatter([xs[t.groups] for t in trees], [mean(t.delta_mtl) for t in trees], s=22, color=PALE, zorder=2)
    named = []
    for tree in trees:
        x, y, name = xs[tree.groups], mean(tree.delta_mtl), names.get(tree.groups)
        colour = colours[name] if name else PALE
        if len(tree.delta_mtl) > 1:
            width = 1.5 if name else 0.6
            axes.errorbar(x, y, yerr=_spread(tree), color=colour, elinewidth=width, capsize=2, zorder=3 if name else 1)
        if name:
            axes.plot(x, y, MARKERS.get(name, "o"), color=colour, markersize=9, zorder=4)
            named.append(Point(x=x, y=y, text=labels[tree.groups], spread=_spread(tree) or 0.0))
    axes.margins(x=0.08, y=0.18)
    return named


def _draw_further(axes: Axes, study: Study) -> tuple[list[Point], list[Line2D]]:
    """Draw the networks of the other strategies, joined by size, hollow on validation; give back names and legend."""
    points, handles, colours = [], [], network_colours(study.networks)
    for marker, chapter in zip(cycle(FURTHER), study.chapters, strict=False):
        pairs = sorted(distinct(chapter.networks()), key=lambda pair: pair[0].params)
        if not pairs:
            continue
        xs = [network.params / 1e6 for network, _ in pairs]
        ys = [mean(study.deltas(network)) for network, _ in pairs]
        vals = [mean(study.deltas(network, "val")) for network, _ in pairs]
        axes.plot(xs, ys, color=MUTED, linewidth=1.2, linestyle=(0, (4, 2)), zorder=2.5)
        axes.plot(xs, vals, marker, mfc="white", mec=MUTED, markersize=5, zorder=2.4)
        for (network, label), x, y in zip(pairs, xs, ys, strict=True):
            axes.plot(x, y, marker, color=colours[network.name], markersize=9, zorder=4)
            points.append(Point(x=x, y=y, text=label))
        points += [Point(x=x, y=val, text="") for x, val in zip(xs, vals, strict=True)]
        handles.append(Line2D([], [], color=INK, marker=marker, linestyle="none", label=chapter.label))
    return points, handles


def _further_words(study: Study) -> str:
    names = [chapter.label for chapter in study.chapters if chapter.networks()]
    return f" Dashed: the networks of {' and of '.join(names)}, by size." if names else ""


def _further_rows(study: Study) -> Iterator[dict]:
    for chapter in study.chapters:
        for network, label in distinct(chapter.networks()):
            sizes = {"params": network.params, "flops": network.flops, "cost": None}
            for delta, val in zip(study.deltas(network), study.deltas(network, "val"), strict=True):
                found = {"delta_mtl": delta, "delta_mtl_val": val, "job": " ".join(network.keys)}
                yield {"name": network.name, "chosen": label} | sizes | found


def _labels(study: Study) -> dict[Groups, str]:
    """Map each chosen tree to all its labels: a budget's tree may be the shared one again."""
    labels: dict[Groups, list[str]] = {}
    for tree in study.search.chosen.values():
        labels.setdefault(tree.groups, []).append(tree.label)
    return {groups: " = ".join(names) for groups, names in labels.items()}


def _record(study: Study, tree: TrainedTree) -> dict:
    label = _labels(study).get(tree.groups, "")
    return {"name": tree.name, "chosen": label, "params": tree.params, "flops": tree.flops, "cost": tree.cost}


def _runs(study: Study) -> Iterator[tuple[dict, float, float, str]]:
    for tree in study.trained.trees:
        for delta, val, job in zip(tree.delta_mtl, tree.delta_mtl_val, tree.jobs, strict=True):
            yield _record(study, tree), delta, val, job


def _spread(tree: TrainedTree) -> float | None:
    return stdev(tree.delta_mtl) if len(tree.delta_mtl) > 1 else None


def _spread_words(study: Study) -> str:
    if any(len(tree.delta_mtl) > 1 for tree in study.trained.trees):
        return "Mean over seeds; bars: one standard deviation."
    return "One seed each: how far a dot would move with another seed is not known."
