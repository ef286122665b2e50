"""The direction that a surface faces, per pixel.

Shapes: B batch, N training images, H W height and width.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from models.tasks.base import DenseTask
from models.tasks.pictures import normal_picture
from models.tasks.summed import Summed, ratio

DIRECTIONS = ("right", "left", "up", "down", "the camera", "away")  # the two senses of each component


class Normals(DenseTask):
    """Map an image to unit normals (right, up, out of the scene) [3, H, W], learned by 1 - cosine.

    It is the loss of Eigen and Fergus 2015 (Sec. 4.2), plus 1. The metric is the mean angle to the labelled normal over
    all labelled pixels of the split, in degrees.
    """

    layout = "normals"
    metric_name = "angle"
    higher_is_better = False

    @property
    def outputs(self) -> int:
        return 3

    def loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        labelled = target.any(1)
        cosine = (F.normalize(output.float(), dim=1) * target).sum(1)
        return ((1 - cosine) * labelled).sum(), labelled.sum().float()

    def metric(self) -> Metric:
        return Summed((2,), _angles, ratio)

    def predict(self, output: Tensor) -> Tensor:
        return F.normalize(output.float(), dim=1)

    def trivial(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """The mean normal of each pixel, at unit length; where a pixel is never labelled, that of all."""
        total_3HW, number_HW = targets.sum(0), targets.any(1).sum(0)
        overall_3 = total_3HW.sum((1, 2)).view(3, 1, 1)
        return F.normalize(torch.where(number_HW > 0, total_3HW, overall_3), dim=0)

    def describe(self, prediction: Tensor) -> str:
        """The share of pixels that face each way, the largest first."""
        strongest_HW = prediction.abs().argmax(0)
        away_HW = prediction.gather(0, strongest_HW.unsqueeze(0))[0] < 0
        counts = torch.bincount((2 * strongest_HW + away_HW).flatten(), minlength=len(DIRECTIONS))
        shares = [(DIRECTIONS[k], int(counts[k]) / away_HW.numel()) for k in counts.argsort(descending=True)]
        return "facing " + ", ".join(f"{name} {share:.0%}" for name, share in shares if share > 0)

    def render(self, prediction: Tensor) -> Tensor:
        return normal_picture(prediction)

    def render_target(self, target: Tensor, size: tuple[int, int]) -> Tensor:
        return normal_picture(target)


def _angles(prediction_B3HW: Tensor, target_B3HW: Tensor) -> Tensor:
    """The sum of the angles in degrees, and the number of labelled pixels."""
    labelled_BHW = target_B3HW.any(1)
    # twice the angle of the half-way rhombus: the arc cosine of a product near 1 loses half of its digits
    apart_BHW, along_BHW = (prediction_B3HW - target_B3HW).norm(dim=1), (prediction_B3HW + target_B3HW).norm(dim=1)
    degrees_BHW = torch.atan2(apart_BHW, along_BHW) * (2 * 180 / math.pi)
    return torch.stack([(degrees_BHW * labelled_BHW).sum(dtype=torch.float64), labelled_BHW.sum().double()])
