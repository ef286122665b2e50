"""The metric of task kinds whose metric torchmetrics lacks: a function of sums over a split.

Letters: C classes.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torchmetrics import Metric


def summed(
    shape: tuple[int, ...], measure: Callable[[Tensor, Tensor], Tensor], finish: Callable[[Tensor], Tensor]
) -> "Metric":
    """A fresh metric that maps (prediction, target) batches to finish(sum over batches of measure(prediction, target)).

    Sums of this `shape` agree across ranks and however a split is cut into batches, in bounded memory.
    """
    from models.tasks._metrics import Summed

    return Summed(shape, measure, finish)


def ratio(sums_2: Tensor) -> Tensor:
    """Map (sum, number) to the mean; NaN where there is nothing."""
    return sums_2[0] / sums_2[1]


def class_hits(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    """Map class indices, and labels outside 0..classes - 1 where there is none, to right and labelled ones [2, C]."""
    labelled = (target >= 0) & (target < classes)
    wanted, right = target[labelled], predicted[labelled] == target[labelled]
    return torch.stack([torch.bincount(wanted[right], minlength=classes), torch.bincount(wanted, minlength=classes)])


def overall(sums_2C: Tensor) -> Tensor:
    """Map what `class_hits` counted to the share that is right."""
    return ratio(sums_2C.sum(1))


def class_mean(sums_2C: Tensor) -> Tensor:
    """Map what `class_hits` counted to the share right in each class, averaged over the classes with a label."""
    return ratio(sums_2C[:, sums_2C[1] > 0]).mean()
