"""Networks and constant predictors -> the metrics of each task, over one split of each data set."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from models.tasks import Task
from pipeline.loading import Batch, Split, in_order

if TYPE_CHECKING:
    from torchmetrics import Metric

TRIVIAL_IMAGES = 2000  # training images from which constant predictions are drawn

Predict = Callable[[Batch, Sequence[str]], Mapping[str, Tensor]]


def tasks_on(dataset: str, tasks: Mapping[str, Task]) -> list[str]:
    return [name for name, task in tasks.items() if task.spec.dataset == dataset]


@torch.no_grad()
def metrics_of(
    predict: Predict,
    tasks: Mapping[str, Task],
    splits: Sequence[Split],
    *,
    batches: Sequence[int],
    device: torch.device,
    rank: int = 0,
    world: int = 1,
) -> dict[str, float]:
    """Map a predictor to the metric of each task on these splits; each rank sees its rows, all get the same numbers.

    `batches` holds the images that are read at a time from each split.
    """
    metrics = {name: [tasks[name].metric()] for name in _on(splits, tasks)}
    _measure(metrics, predict, tasks, splits, batches, device, rank, world)
    return {name: float(metric.compute()) for name, (metric,) in metrics.items()}


@torch.no_grad()
def measures_of(
    predict: Predict,
    tasks: Mapping[str, Task],
    splits: Sequence[Split],
    *,
    batches: Sequence[int],
    device: torch.device,
) -> dict[str, dict[str, float]]:
    """Map a predictor to all measures of each task on these splits, by name, on this rank alone."""
    metrics = {name: tasks[name].metrics() for name in _on(splits, tasks)}
    _measure(metrics, predict, tasks, splits, batches, device, rank=0, world=1)
    values = {name: torch.cat([m.compute().flatten().cpu() for m in found]).tolist() for name, found in metrics.items()}
    return {
        name: {measure.name: value for measure, value in zip(tasks[name].measures, row, strict=True)}
        for name, row in values.items()
    }


def _on(splits: Sequence[Split], tasks: Mapping[str, Task]) -> list[str]:
    here = {name for split in splits for name in tasks_on(split.dataset, tasks)}
    return [name for name in tasks if name in here]


def _measure(
    metrics: "Mapping[str, Sequence[Metric]]",
    predict: Predict,
    tasks: Mapping[str, Task],
    splits: Sequence[Split],
    batches: Sequence[int],
    device: torch.device,
    rank: int,
    world: int,
) -> None:
    """Show the metrics of each task a rank's rows of the splits, and what is predicted there."""
    for metric in chain.from_iterable(metrics.values()):
        metric.to(device)
        metric.distributed_available_fn = lambda: world > 1  # alone, no waiting for ranks that don't evaluate
    for split, batch in zip(splits, batches, strict=True):
        names = tasks_on(split.dataset, tasks)
        for part in in_order(split, batch, rank, world):
            part = part.to(device)
            for name, prediction in predict(part, names).items():
                target = tasks[name].target(part.labels[tasks[name].spec.column_name])
                for metric in metrics[name]:
                    metric.update(prediction, target)


def predictor(network: nn.Module, tasks: Mapping[str, Task], device: torch.device, bf16: bool) -> Predict:
    """Map a network, in evaluation mode, to what `metrics_of` asks for predictions."""

    def predict(part: Batch, names: Sequence[str]) -> Mapping[str, Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            outputs = network(part.images, names)
        return {name: tasks[name].predict(output.float()) for name, output in outputs.items()}

    return predict


def network_metrics(
    network: nn.Module,
    tasks: Mapping[str, Task],
    splits: Sequence[Split],
    *,
    batches: Sequence[int],
    device: torch.device,
    bf16: bool = False,
    rank: int = 0,
    world: int = 1,
) -> dict[str, float]:
    """Map a network to the metric of each task on these splits; the network is in evaluation mode meanwhile."""
    was_training = network.training
    network.eval()
    predict = predictor(network, tasks, device, bf16)
    values = metrics_of(predict, tasks, splits, batches=batches, device=device, rank=rank, world=world)
    network.train(was_training)
    return values


def trivial_metrics(tasks: Mapping[str, Task], train: Sequence[Split], test: Sequence[Split]) -> dict[str, float]:
    """Map training labels to the metric that the best constant prediction of each task reaches on another split."""
    constants: dict[str, Tensor] = {}
    for split in train:
        parts = list(islice(in_order(split, 200), TRIVIAL_IMAGES // 200))
        for name in tasks_on(split.dataset, tasks):
            raw = torch.cat([part.labels[tasks[name].spec.column_name] for part in parts])
            constants[name] = tasks[name].trivial(tasks[name].target(raw), split.size)

    def predict(part: Batch, names: Sequence[str]) -> Mapping[str, Tensor]:
        return {name: constants[name].expand(len(part), *constants[name].shape) for name in names}

    return metrics_of(predict, tasks, test, batches=[64] * len(test), device=torch.device("cpu"))
