"""One class per pixel.

Shapes: B batch, N training images, H W height and width, C classes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import MulticlassJaccardIndex

from models.spec import IGNORE
from models.tasks.base import DenseTask
from models.tasks.pictures import mask_picture


class Segmentation(DenseTask):
    """Map an image to class indices uint8 [H, W], learned by cross-entropy.

    mIoU is the intersection over union of each class over the whole split, averaged over the classes that occur in
    the labels or in a prediction.
    """

    layout = "mask"
    metric_name = "miou"
    higher_is_better = True

    @property
    def outputs(self) -> int:
        return len(self.classes)

    def loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        total = F.cross_entropy(output.float(), target.long(), ignore_index=IGNORE, reduction="sum")
        return total, (target != IGNORE).sum().float()

    def metric(self) -> Metric:
        # prepare has checked the labels; checking them again would cost more than counting
        return MulticlassJaccardIndex(len(self.classes), average="macro", ignore_index=IGNORE, validate_args=False)

    def predict(self, output: Tensor) -> Tensor:
        return output.argmax(1).to(torch.uint8)

    def trivial(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """The most frequent class everywhere."""
        areas = torch.stack([(targets == index).sum() for index in range(len(self.classes))])
        return areas.argmax().to(torch.uint8).expand(size)

    def describe(self, prediction: Tensor) -> str:
        """The share of each class in the image, the largest first."""
        counts_C = torch.bincount(prediction.flatten().long(), minlength=len(self.classes))
        shares = [(self.classes[k], int(counts_C[k]) / prediction.numel()) for k in counts_C.argsort(descending=True)]
        return ", ".join(f"{name} {share:.0%}" for name, share in shares if share > 0)

    def render(self, prediction: Tensor) -> Tensor:
        return mask_picture(prediction, IGNORE)

    def render_target(self, target: Tensor, size: tuple[int, int]) -> Tensor:
        return mask_picture(target, IGNORE)
