"""One class per image.

Shapes: B batch, N training images, C classes.
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
from models.tasks.summed import Summed, ratio


class Classification(Task):
    """Map an image to class probabilities [C], learned by cross-entropy.

    Accuracy is the share of the labelled images whose likeliest class is right.
    """

    layout = "class"
    metric_name = "accuracy"
    higher_is_better = True
    options: ClassVar = {"label_smoothing": 0.0, "dropout": 0.0}

    @override
    def head(self, channels: Sequence[int], reductions: Sequence[int]) -> nn.Module:
        return PooledHead(channels, len(self.classes), self.settings["dropout"])

    @override
    def target(self, raw: Tensor) -> Tensor:
        return raw

    @override
    def loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        smoothing = self.settings["label_smoothing"]
        total = F.cross_entropy(output.float(), target, ignore_index=-1, label_smoothing=smoothing, reduction="sum")
        return total, (target >= 0).sum().float()

    @override
    def metric(self) -> Metric:
        return Summed((2,), _hits, ratio)

    @override
    def predict(self, output: Tensor) -> Tensor:
        return output.float().softmax(1)

    @override
    def trivial(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """The most frequent class."""
        counts_C = torch.bincount(targets[targets >= 0], minlength=len(self.classes))
        return F.one_hot(counts_C.argmax(), len(self.classes)).float()

    @override
    def render(self, prediction: Tensor) -> str:
        return f"{self.classes[int(prediction.argmax())]} {prediction.max().item():.2f}"

    @override
    def render_target(self, target: Tensor, size: tuple[int, int]) -> str:
        return "unlabelled" if target < 0 else self.classes[int(target)]


def _hits(prediction_BC: Tensor, target_B: Tensor) -> Tensor:
    labelled_B = target_B >= 0
    right_B = labelled_B & (prediction_BC.argmax(1) == target_B)
    return torch.stack([right_B.sum(), labelled_B.sum()])
