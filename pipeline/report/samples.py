"""Test images -> sheets with each task's target, its single-task network's prediction and a tree's."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib import rc_context
from torch import Tensor

from models.bundle import load
from models.tasks.base import Task
from pipeline.artifacts import shards
from pipeline.jobs import task_specs
from pipeline.loading import Split
from pipeline.report.contact_sheet import contact_sheet, describe
from pipeline.report.network import Network
from pipeline.report.sample_sheets import Cell, Strip, picture_sheet, small_print
from pipeline.report.study import Study
from pipeline.report.style import STYLE, Drawing, short

ACROSS, TASKS, SHEETS = 6, 5, 12  # samples and tasks of one sheet; sheets of a data set
LINES = 60  # tasks of one sheet of small print


def median_network(networks: Sequence[Network]) -> Network:
    """The network of the median budget, or of the median size where none was asked for by a budget."""
    asked = [network for network in networks if network.request] or list(networks)
    return sorted(asked, key=lambda network: network.params)[(len(asked) - 1) // 2]


def draw_samples(study: Study, base: Path) -> Iterator[Drawing]:
    """Map a study and its folder of artifacts to sheets of test images with targets and predictions."""
    network = median_network(study.trees)
    tree = load(base / network.strategy / f"{network.name}-s{network.seeds[0]}")
    specs = task_specs(study.config, study.manifests)
    for dataset in dict.fromkeys(spec.dataset for spec in specs):
        here = [spec for spec in specs if spec.dataset == dataset]
        columns = {spec.column_name: spec.column for spec in here}
        split = open_split(study, dataset, "test", base, columns)
        picked = spread(len(split), study.config.report.samples)
        batch, ids = split.read(picked), split.ids
        names = [ids[row] for row in picked]
        together = tree(batch.images)
        strips = []
        for spec in here:
            alone = load(base / "pretrain" / spec.name)
            task = alone.network.tasks[spec.name]
            target, wanted = target_cells(task, batch.labels[spec.column_name], batch.images)
            rows = {
                "target": wanted,
                "single-task": cells_of(task, alone(batch.images)[spec.name], target, wanted, batch.images),
                network.label: cells_of(task, together[spec.name], target, wanted, batch.images),
            }
            strips.append(Strip(task=spec.name, metric=task.metric_name, rows=rows))
        yield from _sheets(study, dataset, names, batch.images, strips, network)


def target_cells(task: Task, labels: Tensor, images: Tensor) -> tuple[Tensor, list[Cell]]:
    """Map a batch of a stored column to what predictions are compared with, and to cells that show it."""
    target, size = task.target(labels), (images.shape[2], images.shape[3])
    shown = [task.render_target(one, size) for one in target]
    return target, [(task.on_image(*pair), None) for pair in zip(shown, images, strict=True)]


def cells_of(task: Task, predictions: Tensor, targets: Tensor, wanted: Sequence[Cell], images: Tensor) -> list[Cell]:
    """Each prediction as a cell, with its metric on this one image; none where the image has no label."""
    cells = []
    for prediction, target, (shown, _), image in zip(predictions, targets, wanted, images, strict=True):
        metric = task.metric()
        metric.update(prediction.unsqueeze(0), target.unsqueeze(0))
        labelled = not isinstance(shown, str) or shown != "unlabelled"
        picture = task.on_image(task.render(prediction), image)
        cells.append((picture, float(metric.compute()) if labelled else None))
    return cells


def draw_contact_sheets(study: Study, base: Path) -> Iterator[Drawing]:
    """Map a study to one sheet a data set: training images with all their labels."""
    for name, manifest in study.manifests.items():
        split = open_split(study, name, "train", base, manifest.columns)
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


def open_split(study: Study, dataset: str, split: str, base: Path, columns: Mapping) -> Split:
    """One split of a data set of the study, as `prepare` left it."""
    size = study.manifests[dataset].size
    # Without a cache only the rows that are asked for are decoded.
    return Split(
        dataset=dataset, paths=shards(dataset, split, base / "prepare"), size=size, columns=columns, cache_bytes=0
    )


def _sheets(
    study: Study, dataset: str, names: Sequence[str], images: Tensor, strips: Sequence[Strip], network: Network
) -> Iterator[Drawing]:
    """Sheets of five tasks; where more than five tasks answer in words, these have sheets of small print before."""
    written = [strip for strip in strips if strip.is_text]
    small = written if len(written) > TASKS else []
    large = [strip for strip in strips if strip not in small]
    parts = [
        (draw, start, group[first : first + size])
        for draw, group, size in ((small_print, small, LINES), (picture_sheet, large, TASKS))
        for start in range(0, len(images), ACROSS)
        for first in range(0, len(group), size)
    ]
    for number, (draw, start, some) in enumerate(parts[:SHEETS]):
        here = slice(start, start + ACROSS)
        with rc_context(STYLE):
            figure = draw(images[here], some, here, study.tasks)
        left_out = f" {len(parts) - SHEETS} more sheets are not shown." if number == SHEETS - 1 < len(parts) - 1 else ""
        score = "Green: right, red: wrong." if draw is small_print else "Small print: the metric on this one image."
        yield Drawing(
            stem=f"samples-{dataset}" + (f"-{number + 1}" if len(parts) > 1 else ""),
            section="samples",
            caption=f"Test images of {dataset}, at even distances, with each task's target, its single-task network's"
            f" prediction and that of the tree of the median budget ({network.label}). {score}{left_out}",
            figure=figure,
            rows=list(_records(names, some, here)),
        )


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
