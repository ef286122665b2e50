"""Several yes/no attributes per image.

Shapes: B batch, N training images, C attributes.
"""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import MultilabelAccuracy

from models.heads import PooledHead
from models.tasks.base import Task


class Attributes(Task):
    """Map an image to the probability of each attribute [C], learned by binary cross-entropy.

    Accuracy is taken per attribute over its labelled images, then averaged over the attributes: the convention of
    CelebA (Liu et al. 2015). A probability above 0.5 means yes. An attribute without any label counts as 0, for every
    network alike.
    """

    layout = "flags"
    metric_name = "accuracy"
    higher_is_better = True
    options: ClassVar = {"dropout": 0.0}

    def head(self, channels: Sequence[int], reductions: Sequence[int]) -> nn.Module:
        return PooledHead(channels, len(self.classes), self.settings["dropout"])

    def loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        labelled = (target >= 0).float()
        total = F.binary_cross_entropy_with_logits(
            output.float(), target.clamp(min=0).float(), weight=labelled, reduction="sum"
        )
        return total, labelled.sum()

    def metric(self) -> Metric:
        # prepare has checked the labels; checking them again would cost more than counting
        return MultilabelAccuracy(len(self.classes), average="macro", ignore_index=-1, validate_args=False)

    def predict(self, output: Tensor) -> Tensor:
        return output.float().sigmoid()

    def trivial(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """The more frequent answer per attribute; yes in a tie, no where nothing is labelled."""
        yes_C, no_C = (targets == 1).sum(0), (targets == 0).sum(0)
        return ((yes_C >= no_C) & (yes_C > 0)).float()

    def describe(self, prediction: Tensor) -> str:
        chances = zip(self.classes, prediction.tolist(), strict=True)
        return ", ".join(f"{name} {chance:.2f}" for name, chance in chances if chance > 0.5) or "none"

    def render(self, prediction: Tensor) -> str:
        return self.describe(prediction)

    def render_target(self, target: Tensor, size: tuple[int, int]) -> str:
        if (target < 0).all():
            return "unlabelled"
        flags = zip(self.classes, target.tolist(), strict=True)
        return ", ".join(name for name, flag in flags if flag == 1) or "none"
