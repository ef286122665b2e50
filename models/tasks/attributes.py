"""Several yes/no attributes per image.

Shapes: B batch, N training images, C attributes.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.heads import PooledHead
from models.tasks._balance import flag_weights
from models.tasks.base import Measure, Task, listed
from models.tasks.summed import summed

if TYPE_CHECKING:
    from torchmetrics import Metric


class Attributes(Task):
    """Map an image to the probability of each attribute [C], learned by binary cross-entropy.

    Accuracy is taken per attribute over its labelled images, then averaged over the attributes: the convention of
    CelebA (Liu et al. 2015). A probability above 0.5 means yes. An attribute without any label counts as 0, for every
    network alike. Further, average precision and F1 of the answer yes, each averaged over the attributes that a
    labelled image has. Option `balance` is the power of an answer's share, per attribute, by which it weighs less,
    0 = all alike; the loss is the weighted mean.
    """

    layout = "flags"
    metric_name = "accuracy"
    higher_is_better = True
    options: ClassVar = {"dropout": 0.0, "balance": 0.0}

    @cached_property
    def weights(self) -> tuple[tuple[float, ...], ...]:
        """Those of each attribute's answers no and yes in the loss; none where all are alike."""
        return flag_weights(self.spec, self.settings["balance"])

    @property
    def further(self) -> tuple[Measure, ...]:
        return (Measure(name="map", higher_is_better=True), Measure(name="f1", higher_is_better=True))

    def head(self, channels: Sequence[int], reductions: Sequence[int]) -> nn.Module:
        return PooledHead(channels, len(self.classes), self.settings["dropout"])

    def loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        weight = (target >= 0).float()
        if self.weights:
            no_C, yes_C = torch.tensor(self.weights, device=output.device).unbind(1)
            weight = weight * torch.where(target == 1, yes_C, no_C)
        total = F.binary_cross_entropy_with_logits(
            output.float(), target.clamp(min=0).float(), weight=weight, reduction="sum"
        )
        return total, weight.sum()

    def metric(self) -> "Metric":
        from torchmetrics.classification import MultilabelAccuracy

        # prepare has checked the labels; checking them again would cost more than counting
        return MultilabelAccuracy(len(self.classes), average="macro", ignore_index=-1, validate_args=False)

    def metrics(self) -> "list[Metric]":
        from models.tasks._metrics import MeanPrecision

        precision = MeanPrecision(len(self.classes), average=None, ignore_index=-1, validate_args=False)
        return [self.metric(), precision, summed((3, len(self.classes)), _f1_parts, _mean_f1)]

    def predict(self, output: Tensor) -> Tensor:
        return output.float().sigmoid()

    def trivial(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """The more frequent answer per attribute; yes in a tie, no where nothing is labelled."""
        yes_C, no_C = (targets == 1).sum(0), (targets == 0).sum(0)
        return ((yes_C >= no_C) & (yes_C > 0)).float()

    def describe(self, prediction: Tensor) -> str:
        """The attributes that are likelier than not, the surest first."""
        chances = sorted(zip(prediction.tolist(), self.classes, strict=True), key=lambda pair: -pair[0])
        return listed([f"{name} {chance:.2f}" for chance, name in chances if chance > 0.5])

    def render(self, prediction: Tensor) -> str:
        return self.describe(prediction)

    def render_target(self, target: Tensor, size: tuple[int, int]) -> str:
        if (target < 0).all():
            return "unlabelled"
        flags = zip(self.classes, target.tolist(), strict=True)
        return listed([name for name, flag in flags if flag == 1])


def _f1_parts(prediction_BC: Tensor, target_BC: Tensor) -> Tensor:
    """Per attribute, the number of right answers yes, of those given, and of those wanted."""
    given_BC, wanted_BC = (prediction_BC > 0.5) & (target_BC >= 0), target_BC == 1
    return torch.stack([(given_BC & wanted_BC).sum(0), given_BC.sum(0), wanted_BC.sum(0)])


def _mean_f1(sums_3C: Tensor) -> Tensor:
    right_C, given_C, wanted_C = sums_3C[:, sums_3C[2] > 0]
    return (2 * right_C / (given_C + wanted_C)).mean()
