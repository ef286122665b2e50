"""The one metric class of all task kinds: a function of sums over a split."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric


class Summed(Metric):
    """Map (prediction, target) batches to finish(sum over batches of measure(prediction, target)).

    Whatever is a function of sums agrees across ranks and between any two ways of cutting a split into batches, and
    takes bounded memory. Sums of nothing make `finish` divide 0 by 0, which is NaN: no label, no score.
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
