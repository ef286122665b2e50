"""Modes of adapting -> what they cost and reach, and how new data sets use the experts.

Letters: L layers, T tasks, E experts.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pipeline.report.cost_plane import look, scale_costs
from pipeline.report.found_adapt import ROUTER, Adapt, Mode, Run
from pipeline.report.mode_names import FAMILIES, mode_family, mode_name
from pipeline.report.point_labels import Point, label_points
from pipeline.report.style import PALE, WIDTH, Drawing, panels
from pipeline.report.usage_maps import UsageMap, Use, expert_order, usage_maps, usage_widget

SECTION = "adapt"
DELTA = r"$\Delta_\mathrm{MTL}$"
COSTS = {
    "trained_params": ("trained parameters, millions", 1e6),
    "model_params": ("parameters of the model, millions", 1e6),
    "flops": ("multiply-adds, millions", 2e6),
}
SAVED = 0.98  # share of what is compared with up to which a mode saves something
FEW, SOME = 6, 3  # layers up to which so many pruned modes stand beside the router's use; with more layers one does


def trade_off_figure(adapt: Adapt) -> Drawing:
    """Trained parameters, the model's parameters and multiply-adds against the quality on test; paper Fig. 3."""
    size = (WIDTH, 2.7)
    figure, axes = panels(len(COSTS), columns=1, size=size)
    families = list(dict.fromkeys(mode_family(mode.mode) for mode in adapt.modes))
    looks = {family: look(place) for place, family in enumerate(families)}
    for axis, (cost, (words, unit)) in zip(axes, COSTS.items(), strict=True):
        saving = _saving(adapt, cost)
        points = _draw(axis, adapt, {mode.mode: getattr(mode, cost) / unit for mode in adapt.modes}, saving, looks)
        axis.set_xlabel(words)
        label_points(axis, points, size)
    pale = " Each panel names full fine-tuning and the modes that save what it shows; pale: the others."
    one = all(mode.mean is not None for mode in adapt.modes)
    figure.supylabel("mean metric on test" if one else f"{DELTA} on test, %", fontsize=9, parse_math=not one)
    handles = [Line2D([], [], color=looks[f][1], marker=looks[f][0], linestyle="none", label=f) for f in families]
    figure.legend(handles=handles, loc="outside upper left", ncols=7)
    return Drawing(
        stem="adapt_trade_off",
        section=SECTION,
        caption="What each mode trains, keeps and computes against what it reaches, mean over the new tasks."
        f"{'' if one else ' The metrics differ, so their mean is Δ_MTL against single-task networks.'}"
        f"{pale if adapt.full else ''}",
        figure=figure,
        rows=[
            {"mode": mode.mode, "label": mode.label, "trained_params": mode.trained_params}
            | {"model_params": mode.model_params, "multiply_adds": mode.flops / 2}
            | {"mean": mode.mean, "delta_mtl": adapt.delta(mode)}
            for mode in adapt.modes
        ],
    )


def usage_figure(adapt: Adapt) -> Drawing:
    """A map for each layer, a row for each new task: the experts that a new router uses, beside what was pruned."""
    modes = [mode for mode in adapt.modes if mode.mode == ROUTER]
    modes += _pruned(adapt)[: SOME if len(adapt.layers) <= FEW else 1]
    layers = [
        (layer.name, [_usage_map(adapt, mode, place) for mode in modes]) for place, layer in enumerate(adapt.layers)
    ]
    beside = " In the png beside it: what pruning leaves, in the same order; hatched: removed." * (len(modes) > 1)
    return Drawing(
        stem="adapt_usage",
        section=SECTION,
        caption="How each new task uses the experts of each layer when only its router is new: each expert's share of"
        f" its choices on validation images, darker is more.{beside} Experts, by number, stand in the order of the task"
        " that uses them most. Bold: at least two tasks give them their even share or more.",
        figure=usage_maps(layers, list(adapt.tasks)),
        rows=[row for mode in [*modes[:1], *_pruned(adapt)] for row in _usage_rows(adapt, mode)],
        widget=usage_widget(
            adapt.layers,
            list(adapt.tasks),
            [_use(adapt, mode) for mode in [*modes[:1], *_pruned(adapt)]],
            at=0,
            row="task",
            most=0.0,
        ),
    )


def _use(adapt: Adapt, mode: Mode) -> Use:
    shares = [_shares(adapt, mode, place).tolist() for place in range(len(adapt.layers))]
    return Use(label=mode_name(mode.mode) if mode.mode != ROUTER else "router only", shares=shares)


def _saving(adapt: Adapt, cost: str) -> list[Mode]:
    """The modes that save a cost; what trains all that pruning left does not train the less by itself."""
    if cost == "trained_params":
        return [mode for mode in adapt.modes if mode.trained_params <= SAVED * mode.model_params]
    most = max(getattr(mode, cost) for mode in adapt.modes)
    return [mode for mode in adapt.modes if getattr(mode, cost) <= SAVED * most]


def _draw(
    axis: Axes,
    adapt: Adapt,
    costs: Mapping[str, float],
    saving: Sequence[Mode],
    looks: Mapping[str, tuple[str, str]],
) -> list[Point]:
    """Draw a mark for each mode; give back where they stand, with the names of those that save something."""
    scale_costs(axis, list(costs.values()))
    full, points = adapt.full, []
    for mode in adapt.modes:
        quality = mode.mean if mode.mean is not None else adapt.delta(mode)
        if quality is None:
            continue
        x = costs[mode.mode]
        named = mode is full or not full or mode in saving
        marker, colour = looks[mode_family(mode.mode)]
        axis.plot(x, quality, marker, color=colour if named else PALE, markersize=7 if named else 5, zorder=3 + named)
        points.append(Point(x=x, y=quality, text=mode_name(mode.mode) if named else ""))
    axis.margins(x=0.08, y=0.2)
    return points


def _pruned(adapt: Adapt) -> list[Mode]:
    """The modes that remove experts, those that do nothing else first."""
    experts = [layer.experts for layer in adapt.layers]
    modes = [mode for mode in adapt.modes if any(run.experts != experts for run in _runs(adapt, mode))]
    return sorted(modes, key=lambda mode: mode_family(mode.mode) != FAMILIES["prune"])


def _runs(adapt: Adapt, mode: Mode) -> list[Run]:
    return [adapt.run[mode.runs[task]] for task in adapt.tasks]


def _shares(adapt: Adapt, mode: Mode, place: int) -> np.ndarray:
    """Shares [T, E] of a layer's experts; experts beyond the last that is left may be missing in a run."""
    shares_TE = np.zeros((len(adapt.tasks), adapt.layers[place].experts))
    for row, run in enumerate(_runs(adapt, mode)):
        shares_TE[row, : len(run.picks[place])] = run.picks[place]
    return shares_TE


def _removed(adapt: Adapt, mode: Mode, place: int) -> np.ndarray:
    """Which experts [T, E] a mode removed: of those without a choice as many as are gone, least used before first."""
    after_TE, before_TE = _shares(adapt, mode, place), _shares(adapt, _router(adapt), place)
    removed_TE = np.zeros(after_TE.shape, bool)
    for row, run in enumerate(_runs(adapt, mode)):
        gone = after_TE.shape[1] - run.experts[place]
        removed_TE[row, np.lexsort((before_TE[row], after_TE[row]))[:gone]] = True
    return removed_TE


def _router(adapt: Adapt) -> Mode:
    return next(mode for mode in adapt.modes if mode.mode == ROUTER)


def _usage_map(adapt: Adapt, mode: Mode, place: int) -> UsageMap:
    return UsageMap(
        title=mode_name(mode.mode) if mode.mode != ROUTER else "router only",
        shares_RE=_shares(adapt, mode, place),
        order_E=expert_order(_shares(adapt, _router(adapt), place)),
        removed_RE=_removed(adapt, mode, place),
    )


def _usage_rows(adapt: Adapt, mode: Mode) -> list[dict]:
    return [
        {"mode": mode.mode, "layer": layer.name, "location": layer.location, "task": run.task, "expert": expert}
        | {"share": float(share), "removed": bool(gone), "job": run.job}
        for place, layer in enumerate(adapt.layers)
        for run, shares_E, gone_E in zip(
            _runs(adapt, mode), _shares(adapt, mode, place), _removed(adapt, mode, place), strict=True
        )
        for expert, (share, gone) in enumerate(zip(shares_E, gone_E, strict=True))
    ]
