"""A study of a paper's own data and backbone -> what that paper prints, as hollow marks beside our results.

They stand in figures whose axes the paper has too, and in tables of their own: in no front, no mean and no sentence.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import mean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pipeline.config import Config, load
from pipeline.presets import preset_path
from pipeline.report.chapter import Cell, PageTable
from pipeline.report.published import (
    ACCURACY,
    ADDED,
    CELEBA,
    CITYSCAPES,
    DECATHLON_SHARES,
    DECATHLON_TOTAL,
    DELTA,
    DOMAINNET_INCREMENTAL,
    DOMAINNET_JOINT,
    LAYERS,
    MULTIPLE,
    PARAMS,
    SKETCH_SHARES,
    SKETCH_TOTAL,
    TASKONOMY,
    PaperTable,
)
from pipeline.report.published_mthl import ADAPTED, CONTINUAL, DOWNSTREAM, TRAINED
from pipeline.report.style import INK, Drawing

TREES = (CITYSCAPES, TASKONOMY)
TOTALS = (SKETCH_TOTAL, DECATHLON_TOTAL, DOMAINNET_JOINT, DOMAINNET_INCREMENTAL)
SHARES = (SKETCH_SHARES, DECATHLON_SHARES)
TABLES = (*TREES, CELEBA, *TOTALS, *SHARES, *TRAINED, *DOWNSTREAM, ADAPTED, CONTINUAL)
HOLLOW: Mapping[str, Any] = {"marker": "h", "linestyle": "none", "mfc": "none", "mec": INK, "mew": 1.1, "markersize": 9}
SIDES = ((0, 10), (0, -10), (9, 0), (-9, 0), (0, 20), (0, -20))  # of a mark's name, in points


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One printed result on the axes of one of our figures; `source` is its table."""

    label: str
    source: str
    x: float
    y: float


def tables_of(config: Config) -> list[PaperTable]:
    """Map a study to the printed tables of the same data sets, tasks and backbone."""
    return [table for table in TABLES if _belongs(table, config)]


def tree_marks(config: Config) -> list[Mark]:
    """Parameters in millions and Δ_MTL in percent; branched paper, Tables 1 and 2 and Fig. 5."""
    return [mark for table in tables_of(config) if table in TREES for mark in _marks(table, PARAMS, DELTA)]


def size_marks(config: Config) -> list[Mark]:
    """Parameters in millions and mean accuracy in percent; branched paper, Table 3."""
    return [mark for table in tables_of(config) if table is CELEBA for mark in _marks(table, PARAMS, ACCURACY)]


def total_marks(config: Config, tasks: Sequence[str]) -> list[Mark]:
    """Total parameters in multiples of the base and the mean accuracy on tasks in percent; TAPS, Tables 1, 4 and 5."""
    marks = []
    for table in (table for table in tables_of(config) if table in TOTALS):
        for label, values in table.rows.items():
            row = dict(zip(table.columns, values, strict=True))
            known = [value for task in tasks if (value := row.get(task)) is not None]
            multiple = row[MULTIPLE]
            if multiple is not None and len(known) == len(tasks):
                marks.append(Mark(label=label, source=table.source, x=multiple, y=mean(known)))
    return marks


def share_marks(config: Config, task: str, share: str) -> list[Mark]:
    """What a task adds (`share`: ADDED or LAYERS), in percent, and its accuracy, as a share; TAPS, Tables 7 and 8."""
    marks = []
    for table in (table for table in tables_of(config) if table in SHARES and task in table.columns):
        place = table.columns.index(task)
        for name in (row.removesuffix(f": {ACCURACY}") for row in table.rows if row.endswith(ACCURACY)):
            x, y = table.rows[f"{name}: {share}"][place], table.rows[f"{name}: {ACCURACY}"][place]
            assert x is not None
            assert y is not None
            marks.append(Mark(label=name, source=table.source, x=x, y=y / 100))
    return marks


def beside_paper(drawing: Drawing, config: Config) -> Drawing:
    """Add what the paper prints to a figure of the same axes; other figures stay as they are."""
    panels = _panels(drawing, config)
    sources = sorted({mark.source for marks in panels for mark in marks})
    if not sources:
        return drawing
    for axes, marks in zip(drawing.figure.axes, panels, strict=False):
        draw_marks(axes, marks)
    words = f" Hollow hexagons, “paper”: as printed in {' and '.join(sources)}; no runs of ours, in no line or mean."
    widget = drawing.widget
    if widget and widget.kind == "pareto":
        widget = replace(widget, data={**widget.data, "published": [_point(mark) for mark in panels[0]]})
    return replace(drawing, caption=drawing.caption + words, widget=widget)


def draw_marks(axes: Axes, marks: Sequence[Mark]) -> None:
    """Draw hollow marks, each with its name where it covers no other name."""
    axes.plot([mark.x for mark in marks], [mark.y for mark in marks], **HOLLOW, zorder=2)
    axes.figure.draw_without_rendering()  # pyright: ignore[reportAttributeAccessIssue]
    taken = [text.get_window_extent() for text in axes.texts]
    for mark in marks:
        text = axes.annotate(
            f"{mark.label}, paper",
            (mark.x, mark.y),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=7,
            fontstyle="italic",
            va="center",
        )
        for x, y in SIDES:
            text.set_position((x, y))
            text.set_horizontalalignment("left" if x > 0 else "right" if x < 0 else "center")
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                break
        taken.append(text.get_window_extent())


def paper_handle() -> Line2D:
    """The line of a legend for what the paper prints."""
    return Line2D([], [], **HOLLOW, label="paper")


def printed_tables(config: Config) -> Iterator[PageTable]:
    """Map a study to the printed tables that belong to it, as tables of the page."""
    for number, table in enumerate(tables_of(config), start=1):
        head = [Cell(text=""), *(Cell(text=column) for column in table.columns)]
        lines = [[Cell(text=label), *map(_cell, values)] for label, values in table.rows.items()]
        yield PageTable(
            stem=f"published-{number}",
            title=f"As the paper prints it: {table.source}",
            caption="Printed numbers, for reading beside ours: of the paper's own runs, splits and schedules.",
            lines=[head, *lines],
            rows=[
                {"source": table.source, "name": label} | dict(zip(table.columns, values, strict=True))
                for label, values in table.rows.items()
            ],
        )


def _panels(drawing: Drawing, config: Config) -> list[list[Mark]]:
    """The marks of each panel of a figure; the panels of TAPS are its tasks, in the order of the rows."""
    if drawing.stem in ("params-delta", "pareto"):
        return [tree_marks(config)]
    if share := {"taps_accuracy": LAYERS, "taps_params": ADDED}.get(drawing.stem):
        return [share_marks(config, task, share) for task in dict.fromkeys(row["task"] for row in drawing.rows)]
    return []


def _point(mark: Mark) -> dict[str, Any]:
    return {"label": mark.label, "source": mark.source, "params": mark.x * 1e6, "test": mark.y}


def _cell(value: float | None) -> Cell:
    return Cell(text="–" if value is None else f"{value:g}".replace("-", "−"))


def _marks(table: PaperTable, x: str, y: str) -> Iterator[Mark]:
    for label, values in table.rows.items():
        row = dict(zip(table.columns, values, strict=True))
        across, up = row[x], row[y]
        if across is not None and up is not None:
            yield Mark(label=label, source=table.source, x=across, y=up)


@cache
def _preset(name: str) -> Config:
    return load(preset_path(name))


def _belongs(table: PaperTable, config: Config) -> bool:
    return any(_same(table, _preset(name), config) for name in table.presets)


def _same(table: PaperTable, preset: Config, config: Config) -> bool:
    backbone = (table.backbone or preset.backbone.name, preset.backbone.pretrained)
    same_network = backbone == (config.backbone.name, config.backbone.pretrained)
    return same_network and _data(preset) == _data(config)


def _data(config: Config) -> Any:
    """What is learned from what, and what TAPS starts from; where the data lie and how they are drawn is not in it."""
    sets = {name: (data.reader, data.images, data.size) for name, data in config.datasets.items()}
    tasks = {name: (task.kind, task.dataset, task.column) for name, task in config.tasks.items()}
    return sets, tasks, config.taps.base
