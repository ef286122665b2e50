"""The metric of task kinds whose metric torchmetrics lacks: a function of sums over a split.

Letters: C classes.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric


class Summed(Metric):
    """Map (prediction, target) batches to finish(sum over batches of measure(prediction, target)).

    Sums agree across ranks and however a split is cut into batches, in bounded memory. Over nothing, `finish` divides
    0 by 0 and gives NaN.
    """

    full_state_update = False
    sums: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        measure: Callable[[Tensor, Tensor], Tensor],
        finish: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.measure = measure
        self.finish = finish
        # float64: the pixels of a split outnumber what float32 can count
        self.add_state("sums", default=torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    @property
    def update_called(self) -> bool:
        """Always true: a rank that sees no batch of a task adds nothing, which is no mistake worth a warning."""
        return True

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add one batch."""
        self.sums += self.measure(prediction, target)

    def compute(self) -> Tensor:
        """The metric over all batches so far."""
        return self.finish(self.sums)


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
