"""The check of a data set -> a sheet of images with every label drawn, and a sheet of how the labels' values spread."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from models.spec import Column
from pipeline.check.columns import ColumnCheck
from pipeline.checking import DatasetCheck
from pipeline.decoding import DECODERS
from pipeline.encoding import LAYOUTS, encode, resize
from pipeline.report.contact_sheet import contact_sheet
from pipeline.report.style import STYLE, TASK_COLOURS, panels, short

BARS, MOST = 20, 40  # bars of a panel, and of yes and no answers; more classes or answers are a curve
PANELS = 24
ENTRY = {"points": 3, "boxes": 5}

Draw = Callable[[Axes], None]


def label_sheet(check: DatasetCheck) -> Figure | None:
    """Map a check to its chosen training rows as training will see them, None where none can be read."""
    columns, size = check.manifest.columns, check.manifest.size
    examples = [resize(check.source.load(row), columns, size) for row in check.shown]
    if not examples:
        return None
    images = torch.stack([torch.from_numpy(one.image.copy()).permute(2, 0, 1) for one in examples])
    labels = {
        name: _decoded(column, [encode(name, column, one.labels.get(name)) for one in examples], size)
        for name, column in columns.items()
    }
    return contact_sheet(images, labels, columns)


def value_sheet(check: DatasetCheck) -> Figure | None:
    """Map a check to a panel for each column with values to show, two-class columns together; None without any."""
    found = list(_panels(check.columns))[:PANELS]
    if not found:
        return None
    with rc_context(STYLE):
        figure, axes = panels(len(found), columns=3, size=(3.5, 3.0))
        for one, (title, draw) in zip(axes, found, strict=True):
            draw(one)
            one.set_title(short(title, 30))
    return figure


def _decoded(column: Column, cells: Sequence[object], size: tuple[int, int]) -> Tensor:
    """A column's cells -> its batch, as `pipeline.loading` makes it."""
    stored = pa.chunked_array([pa.array(cells, LAYOUTS[column.layout].arrow)])
    entry = ENTRY.get(column.layout, 1)
    width = max((len(cell) // entry for cell in cells if isinstance(cell, list)), default=0)
    return DECODERS[column.layout](stored, range(len(cells)), column, size, max(1, width))


def _panels(checks: Mapping[str, ColumnCheck]) -> Iterator[tuple[str, Draw]]:
    """Titles of panels and what draws them."""
    answers: dict[str, float] = {}
    for name, check in checks.items():
        classes, numbers = check.column.classes, check.numbers
        if "yes" in numbers:
            answers |= {flag: share for flag, share in zip(classes, numbers["yes"], strict=True) if share is not None}
        elif check.column.layout == "class" and len(classes) == 2 and numbers and sum(numbers["counts"]["train"]):
            first, second = numbers["counts"]["train"]
            answers[name if classes == ("no", "yes") else f"{name}: {classes[1]}"] = second / (first + second)
        else:
            yield from _column_panels(name, check)
    named, what = sorted(answers.items(), key=lambda item: -item[1]), "share of the labelled training images"
    for start in range(0, min(len(named), MOST), BARS):
        yield "share of yes", _bars(named[start : min(start + BARS, MOST)], what)
    if len(named) > MOST:
        yield "share of yes, all", _curve([share for _, share in named], what)


def _column_panels(name: str, check: ColumnCheck) -> Iterator[tuple[str, Draw]]:
    numbers, classes = check.numbers, check.column.classes
    if "counts" in numbers:
        where, what = ("train", "training images") if "train" in numbers["counts"] else ("all", check.column.layout)
        yield name, _by_class(classes, numbers["counts"][where], what)
    if "shares" in numbers:
        yield name, _by_class(classes, numbers["shares"], "share of the labelled pixels")
    if "histogram" in numbers:
        value = f"value, {check.column.unit}" if check.column.unit else "value"
        yield name, _histogram(numbers["histogram"], numbers["edges"], f"{value}, of labelled pixels")
    if "side" in numbers:
        counts, edges = np.histogram(numbers["side"], 30)
        yield name, _histogram(counts.tolist(), edges.tolist(), "√area of a box, stored pixels")


def _by_class(classes: Sequence[str], values: Sequence[float], what: str) -> Draw:
    ordered = sorted(zip(classes, values, strict=True), key=lambda item: -item[1])
    return _bars(ordered, what) if len(ordered) <= BARS else _curve([value for _, value in ordered], what)


def _bars(items: Sequence[tuple[str, float]], what: str) -> Draw:
    values = [value for _, value in items]

    def draw(axes: Axes) -> None:
        size = 6.5 if len(items) > 8 else 8
        bars = axes.barh(range(len(items)), values, color=TASK_COLOURS[0], height=0.75)
        axes.bar_label(bars, fmt="{:.1%}" if what.startswith("share") else "{:,.0f}", fontsize=size, padding=3)
        axes.set_yticks(range(len(items)), [short(name, 20) for name, _ in items], fontsize=size)
        axes.set(ylim=(max(len(items), 6) - 0.4, -0.6), xlim=(0, max(*values, 1e-9) * 1.22), xlabel=what)
        axes.grid(visible=False, axis="y")

    return draw


def _curve(values: Sequence[float], what: str) -> Draw:
    def draw(axes: Axes) -> None:
        axes.stairs(values, fill=True, facecolor=TASK_COLOURS[0])
        axes.set(xlim=(0, len(values)), ylim=(0, None), xlabel="classes, the most frequent first", ylabel=what)

    return draw


def _histogram(counts: Sequence[float], edges: Sequence[float], what: str) -> Draw:
    def draw(axes: Axes) -> None:
        axes.stairs(counts, edges, fill=True, facecolor=TASK_COLOURS[0])
        axes.set(ylim=(0, None), xlabel=what)
        axes.set_yticks([])

    return draw
