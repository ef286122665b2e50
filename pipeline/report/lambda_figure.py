"""Runs of TAPS -> what each task keeps for itself and what it reaches, by λ: the paper's Tab. 8 as curves."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from pipeline.report.cost_plane import MARKS
from pipeline.report.found_taps import Run, Taps
from pipeline.report.records import change
from pipeline.report.style import WIDTH, Drawing, panels, short
from pipeline.report.widget import Widget, plain

SHOWN = 8  # values of λ up to which each stands below the axis


def lambda_figure(taps: Taps, colours: Mapping[str, str]) -> Drawing:
    """λ against metric, share of task-specific layers and share of additional parameters, a line for each task."""
    titles = {
        "quality": _metric(taps) if taps.one_metric else "change since the least λ, %",
        "layers": "task-specific layers, %",
        "params": "additional parameters, %",
    }
    curves = {task: [_point(taps, run) for run in taps.along(task)] for task in taps.tasks}
    figure, axes = panels(len(titles), columns=len(titles), size=(WIDTH / len(titles), 3.1))
    marks = {task: MARKS[place % len(MARKS)] for place, task in enumerate(taps.tasks)}
    for axis, (key, title) in zip(axes, titles.items(), strict=True):
        for task, points in curves.items():
            _line(axis, points, key, marks[task], colours[task])
        _lam_axis(axis, [row.lam or 0.0 for row in taps.by_lam])
        axis.set_title(title)
    figure.legend(
        handles=[Line2D([], [], color=colours[task], marker=marks[task], label=short(task)) for task in taps.tasks],
        loc="outside upper left",
        ncols=7,
    )
    differ = " The metrics differ, so each stands as its change since the least λ: plus is better."
    return Drawing(
        stem="taps_lambda",
        section="taps",
        caption="What λ costs and saves: the higher, the less a task keeps for itself. Each point at the learning rate"
        " that was best on validation, its metric on test; large: the λ that validation chose."
        + differ
        * (not taps.one_metric),
        figure=figure,
        rows=[{"task": task, **point} for task, points in curves.items() for point in points],
        widget=Widget(
            kind="lambda",
            data={
                "titles": titles,
                "tasks": [
                    {"name": task, "metric": f"{target.metric} {target.arrow}"}
                    | {"points": [{k: plain(v) if isinstance(v, float) else v for k, v in p.items()} for p in points]}
                    for (task, points), target in zip(curves.items(), taps.tasks.values(), strict=True)
                ],
            },
        ),
    )


def _metric(taps: Taps) -> str:
    target = next(iter(taps.tasks.values()))
    return f"{target.metric} on test {target.arrow}"


def _point(taps: Taps, run: Run) -> dict:
    """A run as a point of the three curves; `quality` is the metric, or its change where the tasks' metrics differ."""
    target = taps.tasks[run.task]
    quality = run.test if taps.one_metric else change(target, run.test, taps.along(run.task)[0].test)
    shares = {"layers": 100 * (run.layers_share or 0.0), "params": 100 * run.params_share}
    about = {"metric": target.metric, "test": run.test, "chosen": run.name == target.chosen, "job": run.job}
    return {"lam": run.lam, "quality": quality, **shares, **about}


def _line(axis: Axes, points: Sequence[Mapping], key: str, mark: str, colour: str) -> None:
    """Join a task's points by rising λ; the chosen one is larger."""
    known = [point for point in points if point[key] is not None]
    xs, ys = [point["lam"] for point in known], [point[key] for point in known]
    axis.plot(xs, ys, f"{mark}-", color=colour, linewidth=1.6, markersize=4.5)
    for point in known:
        if point["chosen"]:
            axis.plot(point["lam"], point[key], mark, color=colour, markersize=9, markeredgecolor="white", zorder=4)


def _lam_axis(axis: Axes, lams: Sequence[float]) -> None:
    """A logarithmic axis on which 0, whose logarithm there is none of, stands left of the least other λ."""
    some = [lam for lam in lams if lam > 0]
    if some:
        axis.set_xscale("symlog", linthresh=min(some), linscale=0.7)
    if len(lams) <= SHOWN:
        axis.set_xticks(lams, [f"{lam:g}" for lam in lams])
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("λ")
