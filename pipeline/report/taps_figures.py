"""Runs of TAPS and of what it is compared with -> what its own layers and parameters buy, as the paper's Fig. 2."""

from collections.abc import Mapping, Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.report.cost_plane import look, scale_costs
from pipeline.report.found_taps import Run, Taps
from pipeline.report.point_labels import Point, label_points
from pipeline.report.style import INK, MANY, MUTED, WIDTH, Drawing, panels, short

FINE_TUNING, EXTRACTOR = "fine_tuning", "feature_extractor"
LINES: dict[str, Literal["--", ":"]] = {FINE_TUNING: "--", EXTRACTOR: ":"}
SECTION = "taps"


def accuracy_figure(taps: Taps, colours: Mapping[str, str]) -> Drawing:
    """Share of task-specific layers against the metric on test, a point for each λ: paper Fig. 2."""
    figure, axes, size = _panels(taps, colours)
    yardsticks = [row for row in taps.others if row.method in LINES]
    for axis, task in zip(axes, taps.tasks, strict=True):
        for row in yardsticks:
            if run := taps.of(row, task):
                axis.axhline(run.test, color=INK, linewidth=1, linestyle=LINES[row.method])
        runs = taps.along(task)
        points = [Point(x=100 * (run.layers_share or 0.0), y=run.test, text=_lam(run)) for run in runs]
        _draw_line(axis, taps, points, runs, colours[task])
        label_points(axis, points, size)
    handles = [
        Line2D([], [], color=INK, linewidth=1, linestyle=LINES[row.method], label=row.label) for row in yardsticks
    ]
    _finish(figure, "task-specific layers, %", handles)
    keys = ("layers_share", "params_share")
    return Drawing(
        stem="taps_accuracy",
        section=SECTION,
        caption="What layers of its own buy a task: share of task-specific layers against the metric on test. A point"
        " is one λ, which stands beside it, at the learning rate that was best on validation; points are joined in"
        " order of λ. Large: the λ that validation chose.",
        figure=figure,
        rows=[_record(taps, run, keys) for task in taps.tasks for run in taps.along(task)]
        + [_record(taps, run, keys) for row in yardsticks for task in taps.tasks if (run := taps.of(row, task))],
    )


def params_figure(taps: Taps, colours: Mapping[str, str]) -> Drawing:
    """Share of additional parameters against the metric on test, all methods."""
    figure, axes, size = _panels(taps, colours)
    looks = {row.method: look(i) for i, row in enumerate(taps.others)}
    every = [run for task in taps.tasks for run in _of_task(taps, task)]
    for axis, task in zip(axes, taps.tasks, strict=True):
        scale_costs(axis, [100 * run.params_share for run in every])
        others = [run for row in taps.others if (run := taps.of(row, task))]
        for run in others:
            marker, colour = looks[run.method]
            axis.plot(100 * run.params_share, run.test, marker, color=colour, markersize=6.5, zorder=3)
        runs = taps.along(task)
        ends = [*runs[:1], *runs[-1:]]  # the names of all would hide one another
        points = [Point(x=100 * run.params_share, y=run.test, text=_lam(run) if run in ends else "") for run in runs]
        _draw_line(axis, taps, points, runs, colours[task])
        label_points(axis, [*points, *(Point(x=100 * run.params_share, y=run.test, text="") for run in others)], size)
    handles = [
        Line2D([], [], color=looks[row.method][1], marker=looks[row.method][0], linestyle="none", label=row.label)
        for row in taps.others
    ]
    _finish(figure, "additional parameters, % of the base network", handles)
    return Drawing(
        stem="taps_params",
        section=SECTION,
        caption="Additional parameters of a task, in percent of its base network, against the metric on test: TAPS, a"
        " point for each λ (least and greatest by name, the chosen one large), and what it is compared with.",
        figure=figure,
        rows=[_record(taps, run, ("params_share", "own_params", "bytes")) for run in every],
    )


def _panels(taps: Taps, colours: Mapping[str, str]) -> tuple[Figure, list[Axes], tuple[float, float]]:
    """A panel for each task; also its size in inches."""
    count = len(taps.tasks)
    columns = 4 if count > MANY else min(count, 2 if count in (1, 2, 4) else 3)
    size = (WIDTH / columns, 3.6 if count == 1 else 2.7 if count <= 6 else 2.1)
    figure, axes = panels(count, columns=columns, size=size)
    for axis, (task, target) in zip(axes, taps.tasks.items(), strict=True):
        words = f": {target.metric} {target.arrow}"
        axis.set_title(short(task, (34 if columns < 4 else 25) - len(words)) + words, color=colours[task])
    return figure, axes, size


def _draw_line(axis: Axes, taps: Taps, points: Sequence[Point], runs: Sequence[Run], colour: str) -> None:
    """Join the runs of TAPS by rising λ; the chosen one is larger."""
    xs, ys = [point.x for point in points], [point.y for point in points]
    axis.plot(xs, ys, "o-", color=colour, linewidth=1.6, markersize=5, zorder=4)
    for x, y, run in zip(xs, ys, runs, strict=True):
        if run.name == taps.tasks[run.task].chosen:
            axis.plot(x, y, "o", color=colour, markersize=9.5, markeredgecolor="white", zorder=4.5)
    axis.margins(x=0.12, y=0.2)


def _finish(figure: Figure, words: str, handles: Sequence[Line2D]) -> None:
    figure.supxlabel(words, fontsize=9)
    figure.supylabel("metric on test", fontsize=9)
    taps_line = Line2D([], [], color=MUTED, marker="o", markersize=5, label="TAPS, number: λ")
    figure.legend(handles=[taps_line, *handles], loc="outside upper left", ncols=5)


def _lam(run: Run) -> str:
    return f"{run.lam:g}"


def _of_task(taps: Taps, task: str) -> list[Run]:
    return [*taps.along(task), *(run for row in taps.others if (run := taps.of(row, task)))]


def _record(taps: Taps, run: Run, keys: Sequence[str]) -> dict:
    head = {"task": run.task, "method": run.method, "lam": run.lam, "metric": taps.tasks[run.task].metric}
    return head | {key: getattr(run, key) for key in keys} | {"test": run.test, "val": run.val, "job": run.job}
