"""Branch trees -> a drawing of each, as the paper's Fig. 2: locations from left to right, tasks at the leaves."""

from statistics import mean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Curve

from models.branch_tree import BranchTree, diameter, task_distances
from pipeline.report.affinity_figures import affinity_arrays
from pipeline.report.network import Network
from pipeline.report.number_texts import count_text
from pipeline.report.study import Study, distinct
from pipeline.report.style import INK, MANY, MUTED, TASK_COLOURS, WIDTH, Drawing, panels, short, task_colours
from pipeline.report.widget import Widget, plain

SHARED = "#c3ccd5"


def tree_figure(study: Study) -> Drawing:
    """Every distinct tree: a node is a branch, its size and its edge grow with the tasks that run through it."""
    trees = [
        (network, label, BranchTree(study.search.chosen[network.name].groups))
        for network, label in distinct(study.trees)
    ]
    leaf = 0.3 if len(study.tasks) <= MANY else 0.15
    figure, axes = panels(len(trees), columns=2, gap=0.1, size=(WIDTH / 2, 1.15 + leaf * len(study.tasks)))
    colours = task_colours(study.tasks)
    for axis, (network, label, tree) in zip(axes, trees, strict=True):
        draw_tree(axis, tree, study.tasks, colours)
        axis.set_title(f"{short(label, 40)}\n", fontsize=10.5)
        parts = [f"{count_text(network.params)} parameters", f"{count_text(network.flops / 2)} multiply-adds"]
        parts += [f"cost {study.search.chosen[network.name].cost:.3f}"]
        axis.text(0, 1.015, " · ".join(parts), transform=axis.transAxes, fontsize=8, color=MUTED, va="bottom")
    rows = [
        {"name": network.name, "location": d + 1, "branch": branch + 1}
        | {"tasks": " ".join(study.tasks[t] for t in members)}
        for network in study.trees
        for tree in [BranchTree(study.search.chosen[network.name].groups)]
        for d in range(tree.num_locations)
        for branch, members in enumerate(tree.members(d))
    ]
    return Drawing(
        stem="trees",
        section="trees",
        caption="The chosen trees. Images enter on the left; grey is a copy of a block of the backbone that several"
        " tasks share. In the png its size is the number of tasks that run through it, and the number of branches"
        " stands below. A task keeps its colour on the whole page."
        + (" The colours repeat." if len(study.tasks) > len(TASK_COLOURS) else ""),
        figure=figure,
        rows=rows,
        widget=_widget(study),
    )


def _widget(study: Study) -> Widget:
    """Every distinct tree with its branches by location, and what one branch of each costs where that is known."""
    distances_DTT = task_distances(affinity_arrays(study)[0].tolist()) if study.affinity else None
    return Widget(
        kind="tree",
        data={
            "tasks": study.tasks,
            "costs": study.search.block_costs,
            "trees": [
                _tree(study, network, label, BranchTree(study.search.chosen[network.name].groups), distances_DTT)
                for network, label in distinct(study.trees)
            ],
        },
    )


def _tree(study: Study, network: Network, label: str, tree: BranchTree, distances_DTT: list | None) -> dict:
    values = {task: mean(network.test[task]) for task in study.tasks}
    return {
        "label": label,
        "params": network.params,
        "flops": network.flops,
        "cost": plain(study.search.chosen[network.name].cost),
        "delta": plain(mean(study.deltas(network))),
        "order": leaf_order(tree),
        "locations": [
            [
                {"tasks": members, "apart": plain(diameter(members, distances_DTT[d])) if distances_DTT else None}
                for members in tree.members(d)
            ]
            for d in range(tree.num_locations)
        ],
        "leaves": [
            {
                "metric": f"{row.metric} {row.arrow}",
                "value": plain(values[task]),
                "change": plain(row.change(values[task])),
            }
            for task, row in study.baselines.items()
        ],
    }


def leaf_order(tree: BranchTree) -> list[int]:
    """Map a tree to its tasks, ordered by their branches from the first location on: each branch holds neighbours."""
    return sorted(range(tree.num_tasks), key=lambda t: [row[t] for row in tree.groups])


def draw_tree(axis: Axes, tree: BranchTree, tasks: list[str], colours: dict[str, str]) -> None:
    """Draw one tree from left to right, its tasks in an order in which no edges cross."""
    row_of = {task: place for place, task in enumerate(leaf_order(tree))}
    small = tree.num_tasks > MANY
    unit = 5.0 if small else 11.0
    middle = (tree.num_tasks - 1) / 2
    parents = dict.fromkeys(range(tree.num_tasks), (0.0, middle))
    axis.plot(0, middle, "s", color=INK, markersize=7, zorder=3)
    for d in range(tree.num_locations):
        for members in tree.members(d):
            place = (d + 1.0, float(np.mean([row_of[t] for t in members])))
            colour = colours[tasks[members[0]]] if len(members) == 1 else SHARED
            share = len(members) / tree.num_tasks
            _edge(axis, parents[members[0]], place, colour, 1.2 + unit * share)
            axis.plot(*place, "o", color=colour, markersize=5 + unit * share, markeredgecolor="white", zorder=3)
            parents |= dict.fromkeys(members, place)
    end = tree.num_locations + 1.0
    for t, row in row_of.items():
        _edge(axis, parents[t], (end, row), colours[tasks[t]], 1.2)
        axis.plot(end, row, "s", color=colours[tasks[t]], markersize=4 if small else 7, zorder=3)
        axis.text(end + 0.18, row, short(tasks[t]), va="center", fontsize=6 if small else 8.5)
    axis.set_xlim(-0.2, end + 1.7)
    axis.set_ylim(tree.num_tasks - 0.4, -0.6)
    counts = [f"{d + 1}\n{count}" for d, count in enumerate(tree.branches)]
    axis.set_xticks(range(tree.num_locations + 1), ["location\nbranches", *counts])
    axis.set_yticks([])
    axis.tick_params(length=0, labelcolor=MUTED)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)


def _edge(axis: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, width: float) -> None:
    half = (start[0] + end[0]) / 2
    curve = Curve(
        [start, (half, start[1]), (half, end[1]), end], [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4]
    )
    axis.add_patch(PathPatch(curve, fill=False, edgecolor=colour, linewidth=width, capstyle="round", zorder=1))
