"""Networks with experts -> what they cost and reach, how data sets use the experts, what experts tell of data sets.

Letters: L layers, M data sets, E experts.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.report.cost_plane import look, scale_costs
from pipeline.report.found_moe import MOE, SCRATCH, Moe, Run
from pipeline.report.point_labels import Point, label_points
from pipeline.report.style import INK, MUTED, TASK_COLOURS, WIDTH, Drawing, panels, short
from pipeline.report.usage_maps import UsageMap, Use, expert_order, usage_maps, usage_widget

DELTA = r"$\Delta_\mathrm{MTL}$"
FAR = 0.25  # share of the greatest possible information from which on its line is drawn
NAMES = 6  # layers whose names fit side by side


def quality_figure(moe: Moe) -> Drawing:
    """Parameters and multiply-adds against Δ_MTL on test of every method."""
    size = (WIDTH / 2, 3.6)
    figure, axes = panels(2, columns=2, size=size, sharey=True)
    looks = {run.method: look(place) for place, run in enumerate(moe.others)}
    looks |= {MOE: ("o", TASK_COLOURS[0]), SCRATCH: ("x", INK)}
    costs = {"parameters, millions": _params, "multiply-adds, millions": _multiply_adds}
    for axis, (words, cost) in zip(axes, costs.items(), strict=True):
        axis.axhline(0, color=INK, linewidth=1)
        scale_costs(axis, [cost(run) for run in moe.runs])
        _draw(axis, moe, [cost(run) for run in moe.runs], looks)
        axis.set_xlabel(words)
        axis.margins(x=0.2, y=0.15)
        points = [Point(x=cost(run), y=run.delta_mtl, text=_name(run)) for run in moe.runs]
        label_points(axis, [*points, *(Point(x=cost(run), y=run.delta_mtl_val, text="") for run in moe.runs)], size)
    axes[0].set_ylabel(f"{DELTA} on test, %", parse_math=True)
    return Drawing(
        stem="moe_quality",
        section=MOE,
        caption="What each method costs against Δ_MTL on test; 0 is the set of single-task networks. Circles: with"
        " experts, at each λ, the chosen one large. Hollow: on validation.",
        figure=figure,
        rows=[
            {"name": run.name, "method": run.method, "lam": run.lam, "params": run.params}
            | {"multiply_adds": run.flops // 2, "delta_mtl": run.delta_mtl, "delta_mtl_val": run.delta_mtl_val}
            | {"chosen": run is moe.chosen, "jobs": " ".join(run.jobs)}
            for run in moe.runs
        ],
    )


def usage_figure(moe: Moe) -> Drawing:
    """A map for each layer, a row for each data set, a column for each expert: at the chosen λ and at λ = 0."""
    runs = moe.compared
    layers = [(layer.name, [_usage_map(run, place) for run in runs]) for place, layer in enumerate(moe.layers)]
    pair = " and ".join(f"λ = {run.lam:g}" for run in runs)
    beside = f" In the png beside each other: {pair}." if len(runs) > 1 else ""
    return Drawing(
        stem="moe_usage",
        section=MOE,
        caption="How the data sets use the experts of each layer: each expert's share of a data set's choices on"
        f" validation images, darker is more.{beside} Experts, by number, stand in the order of the data set that uses"
        " them most, anew in each map. Bold: at least two data sets give them their even share or more.",
        figure=usage_maps(layers, moe.datasets),
        rows=[row for run in moe.by_lam for row in _usage_rows(moe, run)],
        widget=usage_widget(
            moe.layers,
            moe.datasets,
            [Use(label=f"λ = {run.lam:g}", shares=run.picks, information=run.mi) for run in moe.by_lam],
            at=moe.by_lam.index(moe.chosen),
            row="data set",
            most=moe.most_information,
        ),
    )


def information_figure(moe: Moe) -> Drawing:
    """I(expert; data set) over the layers, a line for each λ."""
    figure, (axis,) = panels(1, columns=1, size=(WIDTH, 3.2))
    ramp, last = colormaps["viridis_r"], max(1, len(moe.by_lam) - 1)
    places = range(1, len(moe.layers) + 1)
    for place, run in enumerate(moe.by_lam):
        mark, width = ("o", 2.6) if run is moe.chosen else ("s", 1.4)
        words = f"λ = {run.lam:g}{', chosen' if run is moe.chosen else ''}"
        axis.plot(places, run.mi, f"{mark}-", color=ramp(0.25 + 0.7 * place / last), linewidth=width, label=words)
    most = moe.most_information
    found = max(value for run in moe.by_lam for value in run.mi)
    near = found >= FAR * most
    if near:
        axis.axhline(
            most, color=INK, linewidth=1, linestyle="--", label=f"at most log {len(moe.datasets)} = {most:.2f}"
        )
    axis.set_ylim(0, 1.08 * (most if near else found) or 1.0)
    few = len(moe.layers) <= NAMES
    names = [short(layer.name, 26 if few else 22) for layer in moe.layers]
    axis.set_xticks(places, names, rotation=0 if few else 35, ha="center" if few else "right", rotation_mode="anchor")
    axis.yaxis.set_major_locator(MaxNLocator(6))
    axis.set_xlim(0.5, len(moe.layers) + 0.5)
    axis.set_ylabel("I(expert; data set), nats")
    figure.legend(loc="outside upper left", ncols=6)
    far = "" if near else f" The most possible, log {len(moe.datasets)} = {most:.2f}, is far above."
    return Drawing(
        stem="moe_information_depth",
        section=MOE,
        caption="What an expert tells of the data set, layer by layer from input to output, on validation images. 0:"
        f" all data sets use the experts alike.{far}",
        figure=figure,
        rows=[
            {"name": run.name, "lam": run.lam, "layer": layer.name, "location": layer.location, "information": value}
            for run in moe.by_lam
            for layer, value in zip(moe.layers, run.mi, strict=True)
        ],
    )


def _params(run: Run) -> float:
    return run.params / 1e6


def _multiply_adds(run: Run) -> float:
    return run.flops / 2e6


def _name(run: Run) -> str:
    return short(f"λ {run.lam:g}" if run.method == MOE else run.label, 26)


def _draw(axis: Axes, moe: Moe, costs: Sequence[float], looks: Mapping[str, tuple[str, str]]) -> None:
    """Draw a mark for each method, hollow on validation; the single-task networks are 0 on both."""
    for run, cost in zip(moe.runs, costs, strict=True):
        marker, colour = looks[run.method]
        size = 9.5 if run is moe.chosen else 6.5
        axis.plot(cost, run.delta_mtl, marker, color=colour, markersize=size, zorder=4)
        if run.method != SCRATCH:
            axis.plot(cost, run.delta_mtl_val, marker, mfc="white", mec=MUTED, markersize=5, zorder=3)


def _usage_map(run: Run, place: int) -> UsageMap:
    shares_ME = np.array(run.picks[place])
    return UsageMap(
        title=f"λ = {run.lam:g} · {run.mi[place]:.2f} nats",
        shares_RE=shares_ME,
        order_E=expert_order(shares_ME),
        removed_RE=np.zeros(shares_ME.shape, bool),
    )


def _usage_rows(moe: Moe, run: Run) -> list[dict]:
    return [
        {"name": run.name, "lam": run.lam, "layer": layer.name, "location": layer.location, "dataset": dataset}
        | {"expert": expert, "share": share, "probability": run.probs[place][m][expert], "job": run.jobs[0]}
        for place, layer in enumerate(moe.layers)
        for m, dataset in enumerate(moe.datasets)
        for expert, share in enumerate(run.picks[place][m])
    ]
