"""The direction that a surface faces, per pixel.

Shapes: B batch, N training images, H W height and width.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from models.tasks.base import DenseTask, Measure
from models.tasks.pictures import normal_picture
from models.tasks.summed import ratio, summed

if TYPE_CHECKING:
    from torchmetrics import Metric

DIRECTIONS = ("right", "left", "up", "down", "the camera", "away")  # the two senses of each component
LIMITS = (11.25, 22.5, 30.0)  # degrees within which a normal is about right
STEPS = 20  # bins of a degree, into which angles are sorted


class Normals(DenseTask):
    """Map an image to unit normals (right, up, out of the scene) [3, H, W], learned by 1 - cosine.

    It is the loss of Eigen and Fergus 2015 (Sec. 4.2), plus 1. The metric is the mean angle to the labelled normal over
    all labelled pixels of the split, in degrees. Further, as there: the median angle, to a twentieth of a
    degree, and the shares of the pixels within 11.25, 22.5 and 30 degrees.
    """

    layout = "normals"
    metric_name = "angle"
    higher_is_better = False

    @property
    def unit(self) -> str:
        return "°"

    @property
    def further(self) -> tuple[Measure, ...]:
        shares = [Measure(name=f"within_{limit:g}", higher_is_better=True) for limit in LIMITS]
        return (Measure(name="median", higher_is_better=False, unit=self.unit), *shares)

    @property
    def outputs(self) -> int:
        return 3

    def loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        labelled = target.any(1)
        cosine = (F.normalize(output.float(), dim=1) * target).sum(1)
        return ((1 - cosine) * labelled).sum(), labelled.sum().float()

    def metric(self) -> "Metric":
        return summed((2,), _angles, ratio)

    def metrics(self) -> "list[Metric]":
        return [self.metric(), summed((180 * STEPS + 1,), _sorted_angles, _median_and_shares)]

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
    labelled_BHW, degrees_BHW = target_B3HW.any(1), _degrees(prediction_B3HW, target_B3HW)
    return torch.stack([(degrees_BHW * labelled_BHW).sum(dtype=torch.float64), labelled_BHW.sum().double()])


def _sorted_angles(prediction_B3HW: Tensor, target_B3HW: Tensor) -> Tensor:
    """The number of labelled pixels in each bin of angles; the last holds 180 degrees alone."""
    degrees = _degrees(prediction_B3HW, target_B3HW)[target_B3HW.any(1)]
    return torch.bincount((degrees * STEPS).long().clamp(max=180 * STEPS), minlength=180 * STEPS + 1)


def _median_and_shares(counts: Tensor) -> Tensor:
    until = counts.cpu().cumsum(0)
    middle = (torch.searchsorted(until, until[-1] / 2) + 0.5) / STEPS
    shares = [until[round(limit * STEPS) - 1] / until[-1] for limit in LIMITS]
    return torch.stack([torch.where(until[-1] > 0, middle, torch.nan), *shares])


def _degrees(prediction_B3HW: Tensor, target_B3HW: Tensor) -> Tensor:
    # twice the angle of the half-way rhombus: the arc cosine of a product near 1 loses half of its digits
    apart_BHW, along_BHW = (prediction_B3HW - target_B3HW).norm(dim=1), (prediction_B3HW + target_B3HW).norm(dim=1)
    return torch.atan2(apart_BHW, along_BHW) * (2 * 180 / math.pi)
