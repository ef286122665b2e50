"""Gates of TAPS -> maps of the layers that each task keeps for itself, as the paper's Figs. 3 and 6.

Letters: R rows, L gated layers.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from pipeline.report.found_taps import Layer, Run, Taps
from pipeline.report.style import MANY, MUTED, WIDTH, Drawing, panels, short
from pipeline.report.widget import Widget, plain

SHARED = "#edf0f3"
LEAST = 0.35  # strength of the colour of a gate that is just open
LABELS = 30  # names of layers that fit below a map as wide as the page
NARROW = 60  # layers up to which two maps fit side by side
SECTION = "taps"


def chosen_layers(taps: Taps, colours: Mapping[str, str]) -> Drawing:
    """A row for each task at its chosen run, a column for each layer: paper Fig. 3."""
    runs = {task: taps.run[target.chosen] for task, target in taps.tasks.items()}
    step = 0.3 if len(runs) <= MANY else 0.17
    figure, (axis,) = panels(1, columns=1, size=(WIDTH, 1.75 + step * len(runs)))
    _map(axis, taps, [(short(task), run, colours[task]) for task, run in runs.items()], LABELS)
    if len(runs) > MANY:
        axis.tick_params(axis="y", labelsize=6)
    return Drawing(
        stem="taps_layers",
        section=SECTION,
        caption="The layers that each task keeps for itself, from input to output, at the λ that validation chose."
        " In colour: task-specific, the stronger the higher the gate's score; pale: shared with the base network."
        " In the png at the right: how many of all. Lines part the locations.",
        figure=figure,
        rows=[row for run in runs.values() for row in _records(taps, run)],
        widget=_widget(taps),
    )


def layer_kind(layer: Layer) -> str:
    """Map a gated layer to what it does, as far as timm's names tell (paper Fig. 4 has a row of them)."""
    *above, last = layer.name.split(".")
    if "downsample" in [*above, last] or "shortcut" in above:
        return "downsampling"
    if layer.type != "Linear":
        return "convolution"
    if any("attn" in part for part in above):
        return "queries, keys, values" if last == "qkv" else "projection"
    return "MLP" if any("mlp" in part for part in above) else "linear"


def _widget(taps: Taps) -> Widget:
    """Every task's gates at every λ."""
    return Widget(
        kind="layers",
        data={
            "threshold": taps.threshold,
            "layers": [
                {"name": layer.name, "kind": layer_kind(layer), "location": layer.location, "params": layer.params}
                for layer in taps.layers
            ],
            "lams": [row.lam for row in taps.by_lam],
            "tasks": [
                {"name": task, "metric": f"{target.metric} {target.arrow}"}
                | {"runs": [_gates(taps, run) for run in taps.along(task)]}
                for task, target in taps.tasks.items()
            ],
        },
    )


def _gates(taps: Taps, run: Run) -> dict:
    return {
        "lam": run.lam,
        "chosen": run.name == taps.tasks[run.task].chosen,
        "scores": [plain(score) for score in run.scores or ()],
        "active": list(run.active or ()),
        "layers_share": plain(run.layers_share),
        "params_share": plain(run.params_share),
        "test": plain(run.test),
    }


def layers_by_lam(taps: Taps, colours: Mapping[str, str]) -> Drawing:
    """A map for each task, with a row for each λ: paper Fig. 6."""
    columns = 2 if len(taps.tasks) > 1 and (len(taps.layers) <= NARROW or len(taps.tasks) > MANY) else 1
    step = 0.19 if len(taps.tasks) <= MANY else 0.12
    height = 0.42 + step * len(taps.by_lam)
    rows = -(-len(taps.tasks) // columns)
    # The names of the layers stand below the last row of maps alone, and take about an inch.
    figure, axes = panels(len(taps.tasks), columns=columns, size=(WIDTH / columns, height + 1.0 / rows), gap=0.03)
    for place, (axis, task) in enumerate(zip(axes, taps.tasks, strict=True)):
        runs = [(run.lam, run) for run in taps.along(task)]
        names = LABELS // columns if place >= (rows - 1) * columns else 0
        _map(axis, taps, [(f"λ {lam:g}", run, colours[task]) for lam, run in runs], names)
        axis.set_title(short(task, 40), color=colours[task])
        axis.tick_params(axis="y", labelsize=7)
    return Drawing(
        stem="taps_layers_lam",
        section=SECTION,
        caption="The same for every λ, each at the learning rate that was best on validation: as λ grows, fewer layers"
        " stay a task's own. Layers that are its own at every λ matter to it most.",
        figure=figure,
        rows=[row for task in taps.tasks for run in taps.along(task) for row in _records(taps, run)],
    )


def _map(axis: Axes, taps: Taps, lines: Sequence[tuple[str, Run, str]], names: int) -> None:
    """Draw a line of cells for each run; `names` is how many layers are named below."""
    if lines:
        axis.imshow(_colours(taps, lines), aspect="auto", interpolation="nearest")
    axis.set_yticks(range(len(lines)), [label for label, _, _ in lines])
    for row, (_, run, _) in enumerate(lines):
        active = sum(run.active or ())
        text = f"{active}/{len(taps.layers)}"
        place = (1.006, row)
        axis.text(*place, text, transform=axis.get_yaxis_transform(), va="center", fontsize=7, color=MUTED)
    for edge in range(len(lines) - 1):
        axis.axhline(edge + 0.5, color="white", linewidth=1.5)
    for index, (one, other) in enumerate(zip(taps.layers, taps.layers[1:], strict=False)):
        if one.location != other.location:
            axis.axvline(index + 0.5, color="white", linewidth=3)
    shown = _named(taps.layers, names)
    axis.set_xticks(shown, [short(taps.layers[index].name, 22) for index in shown], rotation=90, fontsize=6.5)
    axis.grid(visible=False)
    axis.tick_params(length=0, pad=2)
    axis.spines[:].set_visible(False)


def _named(layers: Sequence[Layer], count: int) -> list[int]:
    """Evenly spaced places of at most `count` layers, from the first on."""
    return list(range(0, len(layers), -(-len(layers) // count))) if count else []


def _colours(taps: Taps, lines: Sequence[tuple[str, Run, str]]) -> np.ndarray:
    """Colours [R, L, 3]: from pale at the threshold to the task's own at the highest score of all lines."""
    most = max((score for _, run, _ in lines for score in run.scores or ()), default=taps.threshold)
    colours_RL3 = np.empty((len(lines), len(taps.layers), 3))
    colours_RL3[:] = to_rgb(SHARED)
    for row, (_, run, colour) in enumerate(lines):
        if run.scores is None or run.active is None:
            continue
        active_L = np.array(run.active, bool)
        strength_L = (np.array(run.scores) - taps.threshold) / ((most - taps.threshold) or 1.0)
        strength_L1 = (LEAST + (1 - LEAST) * strength_L.clip(0, 1))[:, None]
        mixed_L3 = strength_L1 * np.array(to_rgb(colour)) + (1 - strength_L1)
        colours_RL3[row, active_L] = mixed_L3[active_L]
    return colours_RL3


def _records(taps: Taps, run: Run) -> list[dict]:
    head = {"task": run.task, "lam": run.lam, "run": run.name, "job": run.job}
    gates = zip(taps.layers, run.scores or (), run.active or (), strict=False)
    return [
        head
        | {"layer": layer.name, "location": layer.location, "params": layer.params, "score": score, "active": active}
        for layer, score, active in gates
    ]
