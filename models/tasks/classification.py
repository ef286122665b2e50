"""One class per image.

Shapes: B batch, N training images, C classes.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from models.heads import PooledHead
from models.tasks.base import Task


class Classification(Task):
    """Map an image to class probabilities [C], learned by cross-entropy.

    Accuracy is the share of the labelled images whose likeliest class is right.
    """

    layout = "class"
    metric_name = "accuracy"
    higher_is_better = True
    options: ClassVar = {"label_smoothing": 0.0, "dropout": 0.0}

    def head(self, channels: Sequence[int], reductions: Sequence[int]) -> nn.Module:
        return PooledHead(channels, len(self.classes), self.settings["dropout"])

    def loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        smoothing = self.settings["label_smoothing"]
        total = F.cross_entropy(output.float(), target, ignore_index=-1, label_smoothing=smoothing, reduction="sum")
        return total, (target >= 0).sum().float()

    def metric(self) -> Metric:
        # prepare has checked the labels; checking them again would cost more than counting
        return MulticlassAccuracy(len(self.classes), average="micro", ignore_index=-1, validate_args=False)

    def predict(self, output: Tensor) -> Tensor:
        return output.float().softmax(1)

    def trivial(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """The most frequent class."""
        counts_C = torch.bincount(targets[targets >= 0], minlength=len(self.classes))
        return F.one_hot(counts_C.argmax(), len(self.classes)).float()

    def describe(self, prediction: Tensor) -> str:
        return f"{self.classes[int(prediction.argmax())]} {prediction.max().item():.2f}"

    def render(self, prediction: Tensor) -> str:
        return self.describe(prediction)

    def render_target(self, target: Tensor, size: tuple[int, int]) -> str:
        return "unlabelled" if target < 0 else self.classes[int(target)]
