"""One class per pixel.

Shapes: B batch, N training images, H W height and width, C classes.
"""

from functools import cached_property, partial
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from models.spec import IGNORE
from models.tasks._balance import class_weights, weigh
from models.tasks.base import DenseTask, Measure, listed
from models.tasks.pictures import mask_picture
from models.tasks.summed import class_hits, class_mean, overall, summed

if TYPE_CHECKING:
    from torchmetrics import Metric


class Segmentation(DenseTask):
    """Map an image to class indices uint8 [H, W], learned by cross-entropy.

    mIoU is the intersection over union of each class over the whole split, averaged over the classes that occur in
    the labels or in a prediction. Further, the share of the pixels that are right, and its mean over the classes with a
    labelled pixel. Option `balance` is the power of a class's share by which its pixels weigh less, 0 = all alike; the
    loss is the weighted mean.
    """

    layout = "mask"
    metric_name = "miou"
    higher_is_better = True
    options: ClassVar = {"balance": 0.0}

    @cached_property
    def weights(self) -> tuple[float, ...]:
        """That of each class's pixels in the loss; none where all are alike."""
        return class_weights(self.spec, self.settings["balance"])

    @property
    def further(self) -> tuple[Measure, ...]:
        return tuple(Measure(name=name, higher_is_better=True) for name in ("pixel_accuracy", "class_accuracy"))

    @property
    def outputs(self) -> int:
        return len(self.classes)

    def loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        loss_BHW = F.cross_entropy(output.float(), target.long(), ignore_index=IGNORE, reduction="none")
        weight_BHW = weigh(target, target != IGNORE, self.weights)
        return (loss_BHW * weight_BHW).sum(), weight_BHW.sum()

    def metric(self) -> "Metric":
        from torchmetrics.classification import MulticlassJaccardIndex

        # prepare has checked the labels; checking them again would cost more than counting
        return MulticlassJaccardIndex(len(self.classes), average="macro", ignore_index=IGNORE, validate_args=False)

    def metrics(self) -> "list[Metric]":
        number = len(self.classes)
        return [self.metric(), summed((2, number), partial(class_hits, classes=number), _accuracies)]

    def predict(self, output: Tensor) -> Tensor:
        return output.argmax(1).to(torch.uint8)

    def trivial(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """The most frequent class everywhere."""
        counts_C = torch.bincount(targets[targets != IGNORE], minlength=len(self.classes))
        return counts_C.argmax().to(torch.uint8).expand(size)

    def describe(self, prediction: Tensor) -> str:
        """The share of each class in the image, the largest first, down to half a percent."""
        counts_C = torch.bincount(prediction.flatten().long(), minlength=len(self.classes))
        shares = [(self.classes[k], int(counts_C[k]) / prediction.numel()) for k in counts_C.argsort(descending=True)]
        return listed([f"{name} {share:.0%}" for name, share in shares if share >= 0.005])

    def render(self, prediction: Tensor) -> Tensor:
        return mask_picture(prediction, IGNORE)

    def render_target(self, target: Tensor, size: tuple[int, int]) -> Tensor:
        return mask_picture(target, IGNORE)


def _accuracies(sums_2C: Tensor) -> Tensor:
    return torch.stack([overall(sums_2C), class_mean(sums_2C)])
