"""Test images -> sheets with each task's target, its single-task network's prediction and a tree's.

Shapes: N images, H W height and width.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from models.bundle import load
from pipeline.artifacts import shards
from pipeline.jobs import task_specs
from pipeline.loading import Split
from pipeline.report.contact_sheet import GAP, blank_sheet, contact_sheet, describe, place_picture
from pipeline.report.study import Network, Study
from pipeline.report.style import MUTED, STYLE, WIDTH, Drawing, short, task_colours
from pipeline.report.tables import value_text

ACROSS, TASKS, SHEETS = 6, 5, 12  # samples and tasks of one sheet; sheets of a data set
MARGIN = 1.25
GOOD, BAD = "#00795a", "#b34700"

Cell = tuple[Tensor | str, float | None]  # a picture or a text, and this one image's metric


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One task on the sample images: a row of cells under each of its headings."""

    task: str
    metric: str
    rows: Mapping[str, Sequence[Cell]]

    @property
    def is_text(self) -> bool:
        return all(isinstance(cell, str) for cells in self.rows.values() for cell, _ in cells)


def median_network(networks: Sequence[Network]) -> Network:
    """The network of the median budget, or of the median size where none was asked for by a budget."""
    asked = [network for network in networks if network.request] or list(networks)
    return sorted(asked, key=lambda network: network.params)[(len(asked) - 1) // 2]


def draw_samples(study: Study, base: Path) -> Iterator[Drawing]:
    """Map a study and its folder of artifacts to sheets of test images with targets and predictions."""
    network = median_network(study.networks)
    tree = load(base / network.strategy / f"{network.name}-s{network.seeds[0]}")
    specs = task_specs(study.config, study.manifests)
    for dataset in dict.fromkeys(spec.dataset for spec in specs):
        here = [spec for spec in specs if spec.dataset == dataset]
        columns = {spec.column_name: spec.column for spec in here}
        split = _split(study, dataset, "test", base, columns)
        picked = spread(len(split), study.config.report.samples)
        batch, ids = split.read(picked), split.ids
        names = [ids[row] for row in picked]
        together = tree(batch.images)
        strips = []
        for spec in here:
            alone = load(base / "pretrain" / spec.name)
            task, size = alone.network.tasks[spec.name], (batch.images.shape[2], batch.images.shape[3])
            target = task.target(batch.labels[spec.column_name])
            rows: dict[str, list[Cell]] = {"target": [(task.render_target(one, size), None) for one in target]}
            for label, prediction in (
                ("single-task", alone(batch.images)[spec.name]),
                (network.label, together[spec.name]),
            ):
                cells = rows[label] = []
                for one, wanted in zip(prediction, target, strict=True):
                    metric = task.metric()
                    metric.update(one.unsqueeze(0), wanted.unsqueeze(0))
                    cells.append((task.render(one), float(metric.compute())))
            strips.append(Strip(task=spec.name, metric=task.metric_name, rows=rows))
        yield from _sheets(study, dataset, names, batch.images, strips, network)


def draw_contact_sheets(study: Study, base: Path) -> Iterator[Drawing]:
    """Map a study to one sheet a data set: training images with all their labels."""
    for name, manifest in study.manifests.items():
        split = _split(study, name, "train", base, manifest.columns)
        picked = spread(len(split), min(study.config.report.samples, 12))
        batch, ids = split.read(picked), split.ids
        used = [task for task, item in study.config.tasks.items() if item.dataset == name]
        yield Drawing(
            stem=f"data-{name}",
            section="data",
            caption=f"{name}: training images with every label that the set holds, also those that no task of"
            f" this study learns from. Tasks here: {short(', '.join(used), 200) or 'none'}.",
            figure=contact_sheet(batch.images, batch.labels, manifest.columns),
            rows=[
                {"id": ids[row]}
                | {key: describe(batch.labels[key][index], column) for key, column in manifest.columns.items()}
                for index, row in enumerate(picked)
            ],
        )


def spread(total: int, count: int) -> list[int]:
    """`count` row numbers at even distances: a split's order may be that of its classes."""
    count = min(total, count)
    return [index * total // count for index in range(count)]


def _split(study: Study, dataset: str, split: str, base: Path, columns: Mapping) -> Split:
    size = study.manifests[dataset].size
    # Without a cache only the rows that are asked for are decoded.
    return Split(
        dataset=dataset, paths=shards(dataset, split, base / "prepare"), size=size, columns=columns, cache_bytes=0
    )


def _sheets(
    study: Study, dataset: str, names: Sequence[str], images: Tensor, strips: Sequence[Strip], network: Network
) -> Iterator[Drawing]:
    parts = [
        (start, strips[first : first + TASKS])
        for start in range(0, len(images), ACROSS)
        for first in range(0, len(strips), TASKS)
    ]
    for number, (start, some) in enumerate(parts[:SHEETS]):
        here = slice(start, start + ACROSS)
        with rc_context(STYLE):
            figure = _sheet(images[here], some, here, study.tasks)
        left_out = f" {len(parts) - SHEETS} more sheets are not shown." if number == SHEETS - 1 < len(parts) - 1 else ""
        yield Drawing(
            stem=f"samples-{dataset}" + (f"-{number + 1}" if len(parts) > 1 else ""),
            section="samples",
            caption=f"Test images of {dataset}, at even distances, with each task's target, its single-task network's"
            f" prediction and that of the tree of the median budget ({network.label}). Small print: the"
            f" metric on this one image.{left_out}",
            figure=figure,
            rows=list(_records(names, some, here)),
        )


def _sheet(images: Tensor, strips: Sequence[Strip], here: slice, tasks: Sequence[str]) -> Figure:
    side = min(1.9, (WIDTH - MARGIN) / len(images))
    height = side * images.shape[2] / images.shape[3]
    text, print_height = 0.19, 0.14
    ordered = sorted(strips, key=lambda strip: not strip.is_text)
    total = 0.1 + height
    for strip in ordered:
        total += 0.34 + sum(
            text if strip.is_text else height + print_height * (label != "target") for label in strip.rows
        )
    figure, sheet = blank_sheet(MARGIN + side * len(images), total + 0.1)
    y = 0.1
    for index, image in enumerate(images):
        place_picture(sheet, image, (MARGIN + side * index, y, side - GAP, height - GAP))
    y += height
    colours = task_colours(tasks)
    for strip in ordered:
        sheet.plot([0.05, sheet.get_xlim()[1] - GAP], [y + 0.06] * 2, color=colours[strip.task], linewidth=1.5)
        sheet.text(
            0.05,
            y + 0.2,
            short(f"{strip.task}", 60),
            color=colours[strip.task],
            fontsize=9,
            fontweight="bold",
            va="center",
        )
        y += 0.34
        for label, cells in strip.rows.items():
            step = text if strip.is_text else height + print_height * (label != "target")
            middle = y + (text / 2 if strip.is_text else (height - GAP) / 2)
            sheet.text(MARGIN - 0.1, middle, short(label, 16), fontsize=8, color=MUTED, va="center", ha="right")
            for index, (cell, value) in enumerate(cells[here]):
                _cell(sheet, cell, value, strip.metric, (MARGIN + side * index, y, side - GAP, height - GAP))
            y += step
    return figure


def _cell(
    sheet: Axes, cell: Tensor | str, value: float | None, metric: str, box: tuple[float, float, float, float]
) -> None:
    left, top, width, height = box
    if isinstance(cell, str):
        colour = {1.0: GOOD, 0.0: BAD}.get(value if value is not None else -1.0, "black")
        sheet.text(left, top + 0.095, short(cell, int(width * 15)), fontsize=7.5, color=colour, va="center")
        return
    place_picture(sheet, cell, box)
    if value is not None:
        sheet.text(left, top + height + 0.09, f"{metric} {value_text(value)}", fontsize=6.5, color=MUTED, va="center")


def _records(names: Sequence[str], strips: Sequence[Strip], here: slice) -> Iterator[dict]:
    for strip in strips:
        for label, cells in strip.rows.items():
            for name, (cell, value) in zip(names[here], cells[here], strict=True):
                shown = cell if isinstance(cell, str) else ""
                yield {
                    "id": name,
                    "task": strip.task,
                    "what": label,
                    "text": shown,
                    "metric": strip.metric,
                    "value": value,
                }
