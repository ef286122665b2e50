"""One class per pixel.

Shapes: B batch, N training images, H W height and width, C classes.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric
from typing_extensions import override

from models.heads import PyramidHead
from models.spec import IGNORE
from models.tasks.base import Task
from models.tasks.pictures import mask_picture
from models.tasks.summed import Summed


class Segmentation(Task):
    """Map an image to class indices uint8 [H, W], learned by cross-entropy.

    mIoU is the intersection over union of each class over the whole split, averaged over the classes that are present:
    in the labels or, wrongly, in a prediction. A class that is neither doesn't count (torchmetrics' macro average).
    """

    layout = "mask"
    metric_name = "miou"
    higher_is_better = True

    @override
    def head(self, channels: Sequence[int], reductions: Sequence[int]) -> nn.Module:
        return PyramidHead(channels, reductions, self.spec.head_width, len(self.classes))

    @override
    def target(self, raw: Tensor) -> Tensor:
        return raw

    @override
    def loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        total = F.cross_entropy(output.float(), target.long(), ignore_index=IGNORE, reduction="sum")
        return total, (target != IGNORE).sum().float()

    @override
    def metric(self) -> Metric:
        return Summed((3, len(self.classes)), partial(_areas, classes=len(self.classes)), _mean_iou)

    @override
    def predict(self, output: Tensor) -> Tensor:
        return output.argmax(1).to(torch.uint8)

    @override
    def trivial(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """The most frequent class everywhere."""
        areas = torch.stack([(targets == index).sum() for index in range(len(self.classes))])
        return areas.argmax().to(torch.uint8).expand(size)

    @override
    def render(self, prediction: Tensor) -> Tensor:
        return mask_picture(prediction, IGNORE)

    @override
    def render_target(self, target: Tensor, size: tuple[int, int]) -> Tensor:
        return mask_picture(target, IGNORE)


def _areas(prediction_BHW: Tensor, target_BHW: Tensor, classes: int) -> Tensor:
    """Pixels per class: predicted and labelled so, predicted so, labelled so; unlabelled pixels left out."""
    labelled = target_BHW != IGNORE
    predicted, true = prediction_BHW[labelled], target_BHW[labelled]
    return torch.stack([torch.bincount(x, minlength=classes) for x in (true[predicted == true], predicted, true)])


def _mean_iou(sums_3C: Tensor) -> Tensor:
    both_C, predicted_C, true_C = sums_3C
    return (both_C / (predicted_C + true_C - both_C)).nanmean()
