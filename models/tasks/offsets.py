"""The way from each object pixel to the centre of its instance: instance segmentation as a dense task.

Shapes: B batch, N training images, H W height and width, I instance ids.
"""

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from models.spec import IGNORE
from models.tasks.base import DenseTask, Measure
from models.tasks.pictures import wheel_picture
from models.tasks.summed import ratio, summed

if TYPE_CHECKING:
    from torchmetrics import Metric

NEAR = 5  # pixels within which a vector's end is about right


class Offsets(DenseTask):
    """Map an image to the vectors (dx, dy) in pixels [2, H, W] that lead to the instance's centroid, learned by L1.

    The centroid is the mean of the pixels that are visible. The raw output is in units of `reach` x the longer side, a
    typical length of the vectors, so that the loss |dx| + |dy| is of order 1 at any image size. Only pixels of objects
    count. The metric is the mean end-point error in pixels; further, the share of those errors that are 5 pixels or
    less. A target is (dx, dy, 1 on objects) [3, H, W].
    """

    layout = "instances"
    metric_name = "epe"
    higher_is_better = False
    laplace = True
    options: ClassVar = {"reach": 0.1}

    @property
    def unit(self) -> str:
        return "px"

    @property
    def further(self) -> tuple[Measure, ...]:
        return (Measure(name=f"within_{NEAR}px", higher_is_better=True),)

    @property
    def outputs(self) -> int:
        return 2

    def target(self, raw: Tensor) -> Tensor:
        batch, height, width = raw.shape
        row = torch.arange(height, device=raw.device).view(height, 1).expand_as(raw)
        column = torch.arange(width, device=raw.device).expand_as(raw)
        places = torch.stack([column, row, torch.ones_like(row)], 1).flatten(2)  # [B, 3, H * W]
        id_B3P = raw.long().view(batch, 1, -1).expand_as(places)
        # sums of whole numbers: exact, and the same in any order of adding
        sums_B3I = places.new_zeros(batch, 3, IGNORE + 1).scatter_add_(2, id_B3P, places)
        centroid = (sums_B3I[:, :2] / sums_B3I[:, 2:].clamp(min=1)).gather(2, id_B3P[:, :2])
        target = torch.cat([centroid - places[:, :2], places[:, 2:]], 1).view(batch, 3, height, width)
        return target * ((raw != 0) & (raw != IGNORE)).unsqueeze(1)

    def loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        unit = self._unit((output.shape[-2], output.shape[-1]))
        distance = (output.float() - target[:, :2] / unit).abs().sum(1)
        return (distance * target[:, 2]).sum(), target[:, 2].sum()

    def metric(self) -> "Metric":
        return summed((2,), _end_point_errors, ratio)

    def metrics(self) -> "list[Metric]":
        return [self.metric(), summed((2,), _near_ends, ratio)]

    def predict(self, output: Tensor) -> Tensor:
        return output.float() * self._unit((output.shape[-2], output.shape[-1]))

    def trivial(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """The mean vector of each pixel; where a pixel is never on an object, that of all."""
        total_2HW, number_HW = targets[:, :2].sum(0), targets[:, 2].sum(0)
        overall_2 = total_2HW.sum((1, 2)) / number_HW.sum()
        return torch.where(number_HW > 0, total_2HW / number_HW, overall_2.view(2, 1, 1))

    def describe(self, prediction: Tensor) -> str:
        length = prediction.norm(dim=0)
        low, mean, high = (f"{float(x):.3g}" for x in (length.min(), length.mean(), length.max()))
        return f"vectors of {low} to {high} pixels, mean {mean}"

    def render(self, prediction: Tensor) -> Tensor:
        """Full colour from twice the unit on."""
        return wheel_picture(prediction / (2 * self._unit((prediction.shape[-2], prediction.shape[-1]))))

    def render_target(self, target: Tensor, size: tuple[int, int]) -> Tensor:
        """Pixels of no object are black."""
        return self.render(target[:2]) * (target[2] > 0)

    def _unit(self, size: tuple[int, int]) -> float:
        return self.settings["reach"] * max(size)


def _end_point_errors(prediction_B2HW: Tensor, target_B3HW: Tensor) -> Tensor:
    distance_BHW = (prediction_B2HW - target_B3HW[:, :2]).norm(dim=1)
    return torch.stack([(distance_BHW * target_B3HW[:, 2]).sum(dtype=torch.float64), target_B3HW[:, 2].sum().double()])


def _near_ends(prediction_B2HW: Tensor, target_B3HW: Tensor) -> Tensor:
    """The number of vectors that end near the centroid, and of all."""
    is_near_BHW = (prediction_B2HW - target_B3HW[:, :2]).norm(dim=1) <= NEAR
    is_object_BHW = target_B3HW[:, 2] > 0
    return torch.stack([(is_near_BHW & is_object_BHW).sum(), is_object_BHW.sum()])
