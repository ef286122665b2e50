"""Several yes/no attributes per image.

Shapes: B batch, N training images, C attributes.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric
from typing_extensions import override

from models.heads import PooledHead
from models.tasks.base import Task
from models.tasks.summed import Summed


class Attributes(Task):
    """Map an image to the probability of each attribute [C], learned by binary cross-entropy.

    Accuracy is reckoned per attribute over its labelled images, then averaged over the attributes that have any: the
    convention of CelebA (Liu et al. 2015). A probability of 0.5 counts as yes.
    """

    layout = "flags"
    metric_name = "accuracy"
    higher_is_better = True
    options: ClassVar = {"dropout": 0.0}

    @override
    def head(self, channels: Sequence[int], reductions: Sequence[int]) -> nn.Module:
        return PooledHead(channels, len(self.classes), self.settings["dropout"])

    @override
    def target(self, raw: Tensor) -> Tensor:
        return raw

    @override
    def loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        labelled = (target >= 0).float()
        total = F.binary_cross_entropy_with_logits(
            output.float(), target.clamp(min=0).float(), weight=labelled, reduction="sum"
        )
        return total, labelled.sum()

    @override
    def metric(self) -> Metric:
        return Summed((2, len(self.classes)), _hits, _mean_over_attributes)

    @override
    def predict(self, output: Tensor) -> Tensor:
        return output.float().sigmoid()

    @override
    def trivial(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """The more frequent answer per attribute; yes in a tie, no where nothing is labelled."""
        yes_C, no_C = (targets == 1).sum(0), (targets == 0).sum(0)
        return ((yes_C >= no_C) & (yes_C > 0)).float()

    @override
    def render(self, prediction: Tensor) -> str:
        chances = zip(self.classes, prediction.tolist(), strict=True)
        return ", ".join(f"{name} {chance:.2f}" for name, chance in chances if chance >= 0.5) or "none"

    @override
    def render_target(self, target: Tensor, size: tuple[int, int]) -> str:
        if (target < 0).all():
            return "unlabelled"
        flags = zip(self.classes, target.tolist(), strict=True)
        return ", ".join(name for name, flag in flags if flag == 1) or "none"


def _hits(prediction_BC: Tensor, target_BC: Tensor) -> Tensor:
    right_BC = ((prediction_BC >= 0.5) == (target_BC == 1)) & (target_BC >= 0)
    return torch.stack([right_BC.sum(0), (target_BC >= 0).sum(0)])


def _mean_over_attributes(sums_2C: Tensor) -> Tensor:
    return (sums_2C[0] / sums_2C[1]).nanmean()
