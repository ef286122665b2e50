"""One class per image.

Shapes: B batch, N training images, C classes.
"""

from collections.abc import Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.heads import PooledHead
from models.tasks._balance import class_weights, weigh
from models.tasks.base import Measure, Task
from models.tasks.summed import class_hits, class_mean, ratio, summed

if TYPE_CHECKING:
    from torchmetrics import Metric

TOP = 5  # answers that an image has in the further accuracy


class Classification(Task):
    """Map an image to class probabilities [C], learned by cross-entropy.

    Accuracy is the share of the labelled images whose likeliest class is right; further, the mean of that share over
    the classes with a labelled image, and the share whose class is among the five likeliest. Option `balance` is the
    power of a class's share by which its images weigh less, 0 = all alike; the loss is the weighted mean.
    """

    layout = "class"
    metric_name = "accuracy"
    higher_is_better = True
    options: ClassVar = {"label_smoothing": 0.0, "dropout": 0.0, "balance": 0.0}

    @cached_property
    def weights(self) -> tuple[float, ...]:
        """That of each class's images in the loss; none where all are alike."""
        return class_weights(self.spec, self.settings["balance"])

    @property
    def further(self) -> tuple[Measure, ...]:
        top = (Measure(name="top5", higher_is_better=True),) if len(self.classes) > TOP else ()
        return (Measure(name="class_accuracy", higher_is_better=True), *top)

    def head(self, channels: Sequence[int], reductions: Sequence[int]) -> nn.Module:
        return PooledHead(channels, len(self.classes), self.settings["dropout"])

    def loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        smoothing, weight_B = self.settings["label_smoothing"], weigh(target, target >= 0, self.weights)
        loss_B = F.cross_entropy(output.float(), target, ignore_index=-1, label_smoothing=smoothing, reduction="none")
        return (loss_B * weight_B).sum(), weight_B.sum()

    def metric(self) -> "Metric":
        from torchmetrics.classification import MulticlassAccuracy

        # prepare has checked the labels; checking them again would cost more than counting
        return MulticlassAccuracy(len(self.classes), average="micro", ignore_index=-1, validate_args=False)

    def metrics(self) -> "list[Metric]":
        number = len(self.classes)
        found: list[Metric] = [self.metric(), summed((2, number), partial(_hits, classes=number), class_mean)]
        return [*found, summed((2,), _top_hits, ratio)] if number > TOP else found

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


def _hits(prediction_BC: Tensor, target_B: Tensor, classes: int) -> Tensor:
    return class_hits(prediction_BC.argmax(1), target_B, classes)


def _top_hits(prediction_BC: Tensor, target_B: Tensor) -> Tensor:
    """The number of images with their class among the likeliest five, and of all labelled ones."""
    is_hit_B = (prediction_BC.topk(TOP, 1).indices == target_B.unsqueeze(1)).any(1)
    return torch.stack([is_hit_B.sum(), (target_B >= 0).sum()])
