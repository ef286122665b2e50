"""Edge or not, per pixel.

Shapes: B batch, N training images, H W height and width.
"""

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from models.spec import IGNORE, TaskSpec
from models.tasks.base import DenseTask, Measure
from models.tasks.pictures import grey_picture
from models.tasks.summed import ratio, summed

if TYPE_CHECKING:
    from torchmetrics import Metric

THRESHOLDS = 51  # 0, 0.02, ..., 1; the time of an update grows with their number


class Edges(DenseTask):
    """Map an image to edge strength 0..1 [H, W], learned by class-balanced cross-entropy (HED: Xie and Tu 2015, Eq. 2).

    An edge pixel weighs `positive_weight`, any other 1 - `positive_weight`, and the loss is the weighted mean. F1 is
    that of the one best threshold for the whole split, as in ODS, but a pixel must be hit exactly: it lies below
    published ODS numbers, which allow a small distance. Further, the mean distance of the strength from 0 or 1.
    """

    layout = "mask"
    metric_name = "f1"
    higher_is_better = True
    options: ClassVar = {"positive_weight": 0.9}

    def __init__(self, spec: TaskSpec) -> None:
        super().__init__(spec)
        if len(self.classes) != 2:
            raise ValueError(
                f"task {spec.name!r}: column {spec.column_name!r} has {len(self.classes)} classes; edges needs two: "
                "0 = no edge, 1 = edge"
            )

    @property
    def further(self) -> tuple[Measure, ...]:
        return (Measure(name="l1", higher_is_better=False),)

    @property
    def outputs(self) -> int:
        return 1

    def loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        edge = (target == 1).float()
        positive = self.settings["positive_weight"]
        weight = torch.where(target == 1, positive, 1 - positive) * (target != IGNORE)
        total = F.binary_cross_entropy_with_logits(output[:, 0].float(), edge, weight=weight, reduction="sum")
        return total, weight.sum()

    def metric(self) -> "Metric":
        from models.tasks._metrics import BestF1

        return BestF1(THRESHOLDS, ignore_index=IGNORE, validate_args=False)  # prepare has checked the labels

    def metrics(self) -> "list[Metric]":
        return [self.metric(), summed((2,), _distances, ratio)]

    def predict(self, output: Tensor) -> Tensor:
        return output[:, 0].float().sigmoid()

    def trivial(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """The share of edges at each pixel; where a pixel is never labelled, that of all."""
        edges_HW, number_HW = (targets == 1).sum(0), (targets != IGNORE).sum(0)
        return torch.where(number_HW > 0, edges_HW / number_HW, edges_HW.sum() / number_HW.sum())

    def describe(self, prediction: Tensor) -> str:
        return f"{float((prediction > 0.5).float().mean()):.1%} of the pixels are above 0.5"

    def render(self, prediction: Tensor) -> Tensor:
        return grey_picture(prediction)

    def render_target(self, target: Tensor, size: tuple[int, int]) -> Tensor:
        """Unlabelled pixels are grey."""
        return grey_picture(torch.where(target == IGNORE, 0.5, target.float()))


def _distances(prediction_BHW: Tensor, target_BHW: Tensor) -> Tensor:
    """The sum of the distances from the label, and the number of labelled pixels."""
    labelled_BHW = target_BHW != IGNORE
    distance_BHW = (prediction_BHW - (target_BHW == 1).float()).abs() * labelled_BHW
    return torch.stack([distance_BHW.sum(dtype=torch.float64), labelled_BHW.sum().double()])
