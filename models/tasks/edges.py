"""Edge or not, per pixel.

Shapes: B batch, N training images, H W height and width, K thresholds.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric
from typing_extensions import override

from models.heads import PyramidHead
from models.spec import IGNORE, TaskSpec
from models.tasks.base import Task
from models.tasks.pictures import grey_picture
from models.tasks.summed import Summed

THRESHOLDS = 256  # k / 256 for k in 0..255


class Edges(Task):
    """Map an image to edge strength 0..1 [H, W], learned by class-balanced cross-entropy (HED: Xie and Tu 2015, Eq. 2).

    An edge pixel weighs `positive_weight`, any other 1 - `positive_weight`, and the loss is the weighted mean: what it
    counts is weight. F1 is that of the one best threshold for the whole split (as in ODS), pixel by pixel without
    tolerance of location, so it lies below published ODS numbers.
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

    @override
    def head(self, channels: Sequence[int], reductions: Sequence[int]) -> nn.Module:
        return PyramidHead(channels, reductions, self.spec.head_width, 1)

    @override
    def target(self, raw: Tensor) -> Tensor:
        return raw

    @override
    def loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        edge = (target == 1).float()
        positive = self.settings["positive_weight"]
        weight = torch.where(target == 1, positive, 1 - positive) * (target != IGNORE)
        total = F.binary_cross_entropy_with_logits(output[:, 0].float(), edge, weight=weight, reduction="sum")
        return total, weight.sum()

    @override
    def metric(self) -> Metric:
        return Summed((2, THRESHOLDS), _histograms, _best_f1)

    @override
    def predict(self, output: Tensor) -> Tensor:
        return output[:, 0].float().sigmoid()

    @override
    def trivial(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """The share of edges at each pixel; where a pixel is never labelled, that of all."""
        edges_HW, number_HW = (targets == 1).sum(0), (targets != IGNORE).sum(0)
        return torch.where(number_HW > 0, edges_HW / number_HW, edges_HW.sum() / number_HW.sum())

    @override
    def render(self, prediction: Tensor) -> Tensor:
        return grey_picture(prediction)

    @override
    def render_target(self, target: Tensor, size: tuple[int, int]) -> Tensor:
        """Unlabelled pixels are grey."""
        return grey_picture(torch.where(target == IGNORE, 0.5, target.float()))


def _histograms(prediction_BHW: Tensor, target_BHW: Tensor) -> Tensor:
    """Labelled pixels by strength: the edges among them, and all of them."""
    step = (prediction_BHW * THRESHOLDS).long().clamp(0, THRESHOLDS - 1)
    chosen = (step[target_BHW == 1], step[target_BHW != IGNORE])
    return torch.stack([torch.bincount(x, minlength=THRESHOLDS) for x in chosen])


def _best_f1(sums_2K: Tensor) -> Tensor:
    hits_K, called_K = sums_2K.flip(1).cumsum(1)  # what lies above each threshold, the highest first
    edges = hits_K[-1]
    # without a single edge there is nothing to find, hence no score
    return torch.where(edges > 0, (2 * hits_K / (called_K + edges)).max(), torch.nan)
