"""Tasks learned one after another -> maps of what each method forgets.

Letters: S steps, T tasks.
"""

import numpy as np
from matplotlib.axes import Axes

from pipeline.report.continual_tables import SAME, change_text, forgetting_rows
from pipeline.report.found_adapt import Adapt, Continual, Taught
from pipeline.report.number_texts import value_text
from pipeline.report.style import INK, MUTED, WIDTH, Drawing, panels, short
from pipeline.report.widget import Widget, plain


def forgetting_figure(adapt: Adapt, continual: Continual) -> Drawing:
    """A map for each method: its steps as rows, tasks as columns, coloured by the change since each was learned."""
    methods, columns = continual.methods, min(2, len(continual.methods))
    longest = max(len(short(task)) for task in continual.tasks)
    size = (WIDTH / columns, 0.6 + 0.3 * len(continual.steps) + 0.045 * longest)
    figure, axes = panels(len(methods), columns=columns, size=size)
    maps = [_changes(continual, method) for method in methods]
    end = max(1.0, *(float(np.nanmax(np.abs(change_ST), initial=0.0)) for change_ST in maps))
    for place, (axis, method, change_ST) in enumerate(zip(axes, methods, maps, strict=True)):
        axis.imshow(change_ST, cmap="BrBG", vmin=-end, vmax=end, aspect="auto")
        _write(axis, continual, method, change_ST / end)
        axis.set_title(method.label)
        names = [short(task) for task in continual.tasks]
        axis.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor", fontsize=7.5)
        steps = [f"after {short(name)}" if place % columns == 0 else "" for name in continual.steps]
        axis.set_yticks(range(len(steps)), steps, fontsize=7.5)
        axis.grid(visible=False)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    bar = figure.colorbar(axes[0].images[0], ax=axes, pad=0.01, aspect=12)
    bar.set_label("change, %")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return Drawing(
        stem="adapt_forgetting",
        section="adapt",
        caption="What is forgotten: each task's signed relative change on test since it was learned, in percent, after"
        f" each step. Brown: worse, green: better; {SAME} where it is unchanged. Grey: the metric when the task was"
        " learned.",
        figure=figure,
        rows=forgetting_rows(adapt, continual),
        widget=_widget(continual),
    )


def _widget(continual: Continual) -> Widget:
    """Every method's matrix: metric, change since the task was learned, and where it is to the last bit the same."""
    return Widget(
        kind="forgetting",
        data={
            "tasks": [
                {"name": task, "metric": f"{row.metric} {'↑' if row.higher_is_better else '↓'}"}
                for task, row in continual.tasks.items()
            ],
            "steps": list(continual.steps),
            "methods": [
                {"label": method.label, "learned": [continual.learned(method, task) for task in continual.tasks]}
                | {"cells": [_cells(continual, method, step) for step in range(len(continual.steps))]}
                for method in continual.methods
            ],
        },
    )


def _cells(continual: Continual, method: Taught, step: int) -> list[dict]:
    return [
        {"value": plain(continual.value(method, step, task)), "change": plain(continual.change(method, step, task))}
        | {"same": continual.same(method, step, task)}
        for task in continual.tasks
    ]


def _changes(continual: Continual, method: Taught) -> np.ndarray:
    """Changes [S, T] in percent, nan where there is none."""
    rows = [[continual.change(method, step, task) for task in continual.tasks] for step in range(len(continual.steps))]
    return np.array(rows, float)


def _write(axis: Axes, continual: Continual, method: Taught, strength_ST: np.ndarray) -> None:
    """In each cell its change, or the metric at the step that taught the task."""
    for step in range(len(continual.steps)):
        for place, task in enumerate(continual.tasks):
            value = continual.value(method, step, task)
            if value is None:
                continue
            taught = step == continual.learned(method, task)
            text = value_text(value) if taught else change_text(continual, method, step, task)
            colour = MUTED if taught else "white" if abs(strength_ST[step, place]) > 0.7 else INK
            axis.text(place, step, text, ha="center", va="center", color=colour, fontsize=7.5)
