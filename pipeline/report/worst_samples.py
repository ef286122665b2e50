"""Test images -> for each task those on which the network that one would take is worst against the single-task one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import mean

import torch
from matplotlib import rc_context
from torch import Tensor

from models.bundle import Predictor, load
from models.bundle_files import SPEC
from models.spec import TaskSpec
from models.tasks.base import Task
from pipeline.jobs import task_specs
from pipeline.loading import Batch, Split
from pipeline.report.network import Network
from pipeline.report.sample_sheets import Strip, picture_sheet
from pipeline.report.samples import cells_of, open_split, spread, target_cells
from pipeline.report.study import Study
from pipeline.report.style import STYLE, Drawing

SHOWN, SHEETS = 8, 12  # images of a sheet; sheets
LEAST, MOST = 16, 256  # test images looked at
FLOPS = 4e11  # for all of them: about ten seconds of one core
CHUNK = 16  # images at a time
CHOSEN = {"taps-chosen": "bundle"}  # networks whose bundle has another name


@dataclass(frozen=True, kw_only=True)
class Score:
    """A labelled image's metric and loss under the single-task network and under the other; `worse` ranks it."""

    row: int
    single: float
    shared: float
    change: float
    extra_loss: float

    @property
    def worse(self) -> tuple[float, float]:
        """The least first: what the metric lost, and among equals what the loss gained."""
        return self.change, -self.extra_loss


def draw_worst(study: Study, base: Path) -> Iterator[Drawing]:
    """Map a study and its folder of artifacts to a sheet a task, those first that lost most in the chosen network."""
    if (found := chosen_bundle(study, base)) is None:
        return
    network, path = found
    predictor = load(path)
    specs = {spec.name: spec for spec in task_specs(study.config, study.manifests)}
    tasks = sorted(
        (task for task in predictor.network.tasks if task in study.baselines),
        key=lambda task: study.baselines[task].change(mean(network.test[task])) if study.baselines[task].test else 0.0,
    )[:SHEETS]
    for place, task in enumerate(tasks, start=1):
        yield from _sheet(study, base, specs[task], network, predictor, place)


def chosen_bundle(study: Study, base: Path) -> tuple[Network, Path] | None:
    """The network that is best on validation among those that left a bundle, and its folder."""
    ranked = sorted(study.networks, key=lambda network: (-mean(study.deltas(network, "val")), network.params))
    for network in ranked:
        folder = base / network.strategy
        for name in (f"{network.name}-s{network.seeds[0]}", network.name, CHOSEN.get(network.name, network.name)):
            if (folder / name / SPEC).exists():
                return network, folder / name
    return None


def images_looked_at(study: Study, task: str, total: int) -> int:
    """How many test images fit into the time: fewer for larger networks, at least enough to choose from.

    One task alone takes about as long in either network.
    """
    share = FLOPS / min(SHEETS, len(study.tasks))
    fitting = int(share / (2 * max(1, study.baselines[task].flops)))
    return min(total, max(LEAST, min(MOST, fitting)))


def scores_of(
    split: Split, rows: Sequence[int], column: str, single: Predictor, shared: Predictor, task: str
) -> list[Score]:
    """Map rows of a split to the score of every image that has a label; `column` holds the task's."""
    scores = []
    for start in range(0, len(rows), CHUNK):
        some = rows[start : start + CHUNK]
        batch = split.read(some)
        kind = single.network.tasks[task]
        target = kind.target(batch.labels[column])
        alone, together = (_values(predictor, task, batch.images, target) for predictor in (single, shared))
        for row, one, other in zip(some, alone, together, strict=True):
            if one is not None and other is not None:
                change = (other[0] - one[0]) * (1 if kind.higher_is_better else -1)
                scores.append(
                    Score(row=row, single=one[0], shared=other[0], change=change, extra_loss=other[1] - one[1])
                )
    return scores


@torch.inference_mode()
def _predict(predictor: Predictor, name: str, images: Tensor) -> Tensor:
    return predictor.network.tasks[name].predict(predictor.network(images, [name])[name].float())


@torch.inference_mode()
def _values(predictor: Predictor, name: str, images: Tensor, targets: Tensor) -> list[tuple[float, float] | None]:
    """Each image's metric and loss; none where it has no label, or its metric no value."""
    task: Task = predictor.network.tasks[name]
    outputs = predictor.network(images, [name])[name]
    values: list[tuple[float, float] | None] = []
    metric = task.metric()
    for output, target in zip(outputs.split(1), targets.split(1), strict=True):
        loss, count = task.loss(output, target)
        metric.reset()
        metric.update(task.predict(output.float()), target)
        value = float(metric.compute()) if float(count) else float("nan")
        values.append((value, float(loss) / float(count)) if isfinite(value) else None)
    return values


def _sheet(
    study: Study, base: Path, spec: TaskSpec, network: Network, shared: Predictor, place: int
) -> Iterator[Drawing]:
    """One task's images, targets and both predictions, where it has labels; its table has every image looked at."""
    split = open_split(study, spec.dataset, "test", base, {spec.column_name: spec.column})
    rows = spread(len(split), images_looked_at(study, spec.name, len(split)))
    single = load(base / "pretrain" / spec.name)
    scores = sorted(scores_of(split, rows, spec.column_name, single, shared, spec.name), key=lambda score: score.worse)
    if not scores:
        return
    worst, ids = [score.row for score in scores[:SHOWN]], split.ids
    batch = split.read(worst)
    strip = _strip(batch, spec, {"single-task": single, network.label: shared})
    with rc_context(STYLE):
        figure = picture_sheet(batch.images, [strip], slice(0, len(worst)), study.tasks)
    yield Drawing(
        stem=f"worst-{place}",
        section="samples",
        caption=f"{spec.name}: the {len(worst)} test images on which {network.label} is worst against the single-task"
        f" network, the worst first. {_counts(scores)} of {len(scores)} labelled ones among {_looked_at(rows, split)}.",
        figure=figure,
        rows=[
            {"id": ids[score.row], "task": spec.name, "metric": strip.metric, "single": score.single}
            | {"network": network.name, "value": score.shared, "change": score.change, "shown": score.row in worst}
            for score in scores
        ],
    )


def _strip(batch: Batch, spec: TaskSpec, predictors: Mapping[str, Predictor]) -> Strip:
    task = next(iter(predictors.values())).network.tasks[spec.name]
    target, wanted = target_cells(task, batch.labels[spec.column_name], batch.images)
    cells = {
        label: cells_of(task, _predict(predictor, spec.name, batch.images), target, wanted, batch.images)
        for label, predictor in predictors.items()
    }
    return Strip(task=spec.name, metric=task.metric_name, rows={"target": wanted, **cells})


def _counts(scores: Sequence[Score]) -> str:
    worse, better = (sum(sign * score.change > 0 for score in scores) for sign in (-1, 1))
    return f"By the metric on each image it is worse on {worse} and better on {better}"


def _looked_at(rows: Sequence[int], split: Split) -> str:
    if len(rows) == len(split):
        return f"all {len(rows)} test images"
    return f"{len(rows)} of {len(split):,} test images, at even distances"
