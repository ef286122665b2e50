"""Depth per pixel.

Shapes: B batch, N training images, H W height and width.
"""

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from models.tasks.base import DenseTask, Measure
from models.tasks.pictures import ramp_picture
from models.tasks.summed import summed

if TYPE_CHECKING:
    from torchmetrics import Metric

CLOSE = 1.25  # ratio of two depths that are about the same


class Depth(DenseTask):
    """Map an image to depth [H, W] in the column's unit, learned by the L1 distance of log depth.

    The raw output is log(depth / scale), so that depth is positive and the loss and its gradient are of order 1 in any
    unit. Option `scale` is a typical depth in the column's unit, the first guess of a fresh network. The metric is the
    root of the mean squared error over all labelled pixels of the split, in the unit. Further, as Eigen et al. 2014
    do: the mean error relative to the labelled depth, and the share of the pixels within a factor of 1.25.
    """

    layout = "field"
    metric_name = "rmse"
    higher_is_better = False
    laplace = True
    options: ClassVar = {"scale": 1.0}

    @property
    def unit(self) -> str:
        return self.spec.column.unit

    @property
    def further(self) -> tuple[Measure, ...]:
        return (
            Measure(name="abs_rel", higher_is_better=False),
            Measure(name=f"within_{CLOSE}", higher_is_better=True),
        )

    @property
    def outputs(self) -> int:
        return 1

    def loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        labelled = target > 0
        # log 0 = -inf at an unlabelled pixel would make the masked sum NaN
        wanted = (torch.where(labelled, target.float(), self.settings["scale"]) / self.settings["scale"]).log()
        return ((output[:, 0].float() - wanted).abs() * labelled).sum(), labelled.sum().float()

    def metric(self) -> "Metric":
        from models.tasks._metrics import LabelledError

        return LabelledError(squared=False)

    def metrics(self) -> "list[Metric]":
        return [self.metric(), summed((3,), _relative_errors, _means)]

    def predict(self, output: Tensor) -> Tensor:
        return self.settings["scale"] * output[:, 0].float().exp()

    def trivial(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """The mean depth of each pixel; where a pixel is never labelled, that of all."""
        number_HW, total_HW = (targets > 0).sum(0), targets.sum(0, dtype=torch.float64)
        mean_HW = torch.where(number_HW > 0, total_HW / number_HW, total_HW.sum() / number_HW.sum())
        return mean_HW.float()

    def describe(self, prediction: Tensor) -> str:
        low, mean, high = (f"{float(x):.3g}" for x in (prediction.min(), prediction.mean(), prediction.max()))
        return f"{low} to {high} {self.spec.column.unit}, mean {mean}"

    def render(self, prediction: Tensor) -> Tensor:
        """Near is bright, and `scale` lies in the middle of the ramp."""
        return ramp_picture(self.settings["scale"] / (self.settings["scale"] + prediction))

    def render_target(self, target: Tensor, size: tuple[int, int]) -> Tensor:
        return self.render(target) * (target > 0)


def _relative_errors(prediction: Tensor, target: Tensor) -> Tensor:
    """The sum of the relative errors, the number of pixels that are close, and that of all labelled ones."""
    labelled = target > 0
    found, wanted = prediction[labelled].double(), target[labelled].double()
    is_close = torch.maximum(found / wanted, wanted / found) < CLOSE
    return torch.stack([((found - wanted).abs() / wanted).sum(), is_close.sum(), labelled.sum()])


def _means(sums_3: Tensor) -> Tensor:
    return sums_3[:2] / sums_3[2]
