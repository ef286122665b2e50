"""Any positive field per pixel, such as disparity or a heat map.

Shapes: B batch, N training images, H W height and width.
"""

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from models.tasks.base import DenseTask, Measure
from models.tasks.pictures import ramp_picture
from models.tasks.summed import ratio, summed

if TYPE_CHECKING:
    from torchmetrics import Metric


class Regression(DenseTask):
    """Map an image to a value [H, W] in the column's unit, learned by the L1 distance.

    The raw output is the value / `scale`, a typical value in the column's unit, so that the loss and its gradient are
    of order 1 in any unit. Option `huber` is the distance, in the same measure, below which the loss is quadratic
    (smooth L1: Girshick 2015, "Fast R-CNN", Eq. 3, there 1). The metric is the mean absolute error over all labelled
    pixels of the split, in the unit; further, the root of the mean squared error.
    """

    layout = "field"
    metric_name = "l1"
    higher_is_better = False
    laplace = True
    options: ClassVar = {"scale": 1.0, "huber": 0.0}

    @property
    def unit(self) -> str:
        return self.spec.column.unit

    @property
    def further(self) -> tuple[Measure, ...]:
        return (Measure(name="rmse", higher_is_better=False, unit=self.unit),)

    @property
    def outputs(self) -> int:
        return 1

    def loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        labelled, wanted = target > 0, target.float() / self.settings["scale"]
        distance = F.smooth_l1_loss(output[:, 0].float(), wanted, reduction="none", beta=self.settings["huber"])
        return (distance * labelled).sum(), labelled.sum().float()

    def metric(self) -> "Metric":
        return summed((2,), _absolute_errors, ratio)

    def metrics(self) -> "list[Metric]":
        return [self.metric(), summed((2,), _squared_errors, _root)]

    def predict(self, output: Tensor) -> Tensor:
        return self.settings["scale"] * output[:, 0].float()

    def trivial(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """The median of each pixel, which no constant betters in L1; where a pixel is never labelled, that of all."""
        known = torch.where(targets > 0, targets.float(), torch.nan)
        median_HW = known.nanmedian(0).values
        return torch.where(median_HW.isnan(), known.nanmedian(), median_HW)

    def describe(self, prediction: Tensor) -> str:
        low, mean, high = (f"{float(x):.3g}" for x in (prediction.min(), prediction.mean(), prediction.max()))
        return f"{low} to {high} {self.unit}".rstrip() + f", mean {mean}"

    def render(self, prediction: Tensor) -> Tensor:
        """Much is bright, and `scale` lies in the middle of the ramp."""
        shown = prediction.clamp(min=0)
        return ramp_picture(shown / (self.settings["scale"] + shown))

    def render_target(self, target: Tensor, size: tuple[int, int]) -> Tensor:
        """Unlabelled pixels are black."""
        return self.render(target) * (target > 0)


def _absolute_errors(prediction_BHW: Tensor, target_BHW: Tensor) -> Tensor:
    """The sum of the errors, and the number of labelled pixels."""
    labelled_BHW = target_BHW > 0
    error_BHW = (prediction_BHW - target_BHW).abs() * labelled_BHW
    return torch.stack([error_BHW.sum(dtype=torch.float64), labelled_BHW.sum().double()])


def _squared_errors(prediction_BHW: Tensor, target_BHW: Tensor) -> Tensor:
    labelled_BHW = target_BHW > 0
    error_BHW = (prediction_BHW - target_BHW).square() * labelled_BHW
    return torch.stack([error_BHW.sum(dtype=torch.float64), labelled_BHW.sum().double()])


def _root(sums_2: Tensor) -> Tensor:
    return ratio(sums_2).sqrt()
