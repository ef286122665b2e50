"""torchmetrics' metrics as task kinds need them. It takes long to import: only what measures something does so.

N images, C classes.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import MeanSquaredError, Metric
from torchmetrics.classification import BinaryPrecisionRecallCurve, MultilabelAveragePrecision
from torchmetrics.functional.classification import binary_average_precision
from torchmetrics.utilities import dim_zero_cat


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


class BestF1(BinaryPrecisionRecallCurve):
    """The largest F1 on torchmetrics' curve of precision and recall."""

    def compute(self) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride] - as BinaryAveragePrecision does
        precision, recall, _ = super().compute()
        # 0 / 0 where a threshold finds nothing: as bad as no hit
        return (2 * precision * recall / (precision + recall)).nan_to_num(0).max()


class LabelledError(MeanSquaredError):
    """torchmetrics' error over the labelled pixels alone; it has no `ignore_index` of its own."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        labelled = target > 0
        super().update(preds[labelled], target[labelled])


class MeanPrecision(MultilabelAveragePrecision):
    """The mean over the attributes with a labelled yes; torchmetrics' own warns of the others, and counts them."""

    def compute(self) -> Tensor:
        scores_NC, target_NC = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        found = [
            binary_average_precision(scores_NC[:, c], target_NC[:, c], ignore_index=-1, validate_args=False)
            for c in (target_NC == 1).any(0).nonzero()[:, 0].tolist()
        ]
        return torch.stack(found).mean() if found else torch.tensor(torch.nan)
