"""Points of named sorts in an image, found as peaks of heat maps.

Shapes: B batch, N training images, P points, H W height and width, C point classes, K candidate peaks.
"""

from functools import partial
from math import log, pi
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from models.spec import UNLABELLED
from models.tasks.base import DenseTask, Measure
from models.tasks.pictures import heat_picture
from models.tasks.summed import ratio, summed

if TYPE_CHECKING:
    from torchmetrics import Metric


class Keypoints(DenseTask):
    """Map an image to one heat map per point class [C, H, W], learned by balanced cross-entropy.

    The wanted heat is the largest of the gaussians around the points, of width `sigma` pixels in an image whose longer
    side is 64 and in proportion otherwise. A gaussian covers so few pixels that under a plain mean the empty map is
    almost right, and learning ends there. So heat weighs as many times more than its absence as the image is larger
    than a gaussian: missing one point then costs as much as heat everywhere, and zero output is no rest point.
    `predict` takes that weight out again, so a learned map is a gaussian's height.

    PCK is the share of the points that are found: a class with n points in an image has its n strongest peaks
    compared with them, the strongest first; a peak takes the nearest point still free within `tolerance` x longer side.
    Further, PCK within half of that distance.
    """

    layout = "points"
    metric_name = "pck"
    higher_is_better = True
    options: ClassVar = {"sigma": 1.5, "tolerance": 0.05}

    @property
    def further(self) -> tuple[Measure, ...]:
        return (Measure(name="pck_half", higher_is_better=True),)

    @property
    def outputs(self) -> int:
        return len(self.classes)

    def loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        size = (output.shape[-2], output.shape[-1])
        output, heat = output.float(), self.heat_maps(target, size)
        missed, invented = self._balance(size) * heat * F.softplus(-output), (1 - heat) * F.softplus(output)
        labelled_B = (~_unlabelled(target)).float()
        return ((missed + invented).mean((1, 2, 3)) * labelled_B).sum(), labelled_B.sum()

    def metric(self) -> "Metric":
        return self._pck(self.settings["tolerance"])

    def metrics(self) -> "list[Metric]":
        return [self.metric(), self._pck(self.settings["tolerance"] / 2)]

    def predict(self, output: Tensor) -> Tensor:
        return (output.float() - log(self._balance((output.shape[-2], output.shape[-1])))).sigmoid()

    def trivial(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """The mean heat map of the labelled images."""
        labelled = targets[~_unlabelled(targets)]
        total_CHW = torch.zeros(len(self.classes), *size, device=targets.device)
        for points_1P3 in labelled.split(1):
            total_CHW += self.heat_maps(points_1P3, size)[0]
        return total_CHW / len(labelled)

    def describe(self, prediction: Tensor) -> str:
        """The number of peaks of each class that are higher than 0.5."""
        size = (prediction.shape[-2], prediction.shape[-1])
        radius = max(1, round(_pixels(self.settings["sigma"], size)))
        high = prediction.masked_fill(prediction <= 0.5, -torch.inf)
        _, is_peak_1CK = _peaks(high.unsqueeze(0), radius, size[0] * size[1])
        numbers = zip(self.classes, is_peak_1CK[0].sum(1).tolist(), strict=True)
        return ", ".join(f"{number} {name}" for name, number in numbers)

    def render(self, prediction: Tensor) -> Tensor:
        return heat_picture(prediction)

    def render_target(self, target: Tensor, size: tuple[int, int]) -> Tensor:
        return heat_picture(self.heat_maps(target.unsqueeze(0), size)[0])

    def heat_maps(self, points_BP3: Tensor, size: tuple[int, int]) -> Tensor:
        """Map points to the wanted heat [B, C, H, W]; zero where there is no point."""
        sigma = _pixels(self.settings["sigma"], size)
        x_BP, y_BP, class_BP = points_BP3.float().unbind(-1)
        column_BPW = torch.exp(-(((_centres(size[1], x_BP) - x_BP.unsqueeze(-1)) / sigma) ** 2) / 2)
        row_BPH = torch.exp(-(((_centres(size[0], y_BP) - y_BP.unsqueeze(-1)) / sigma) ** 2) / 2)
        row_BPH = row_BPH * (class_BP >= 0).unsqueeze(-1)
        heat = x_BP.new_zeros(len(points_BP3), len(self.classes), *size)
        image_B, channel_BP = torch.arange(len(heat), device=heat.device), class_BP.long().clamp(min=0)
        for p in range(points_BP3.shape[1]):  # one point at a time: all gaussians at once would be P times the memory
            blob_BHW = row_BPH[:, p, :, None] * column_BPW[:, p, None, :]
            heat[image_B, channel_BP[:, p]] = torch.maximum(heat[image_B, channel_BP[:, p]], blob_BHW)
        return heat

    def _pck(self, tolerance: float) -> "Metric":
        return summed((2,), partial(_found, sigma=self.settings["sigma"], tolerance=tolerance), ratio)

    def _balance(self, size: tuple[int, int]) -> float:
        return size[0] * size[1] / (2 * pi * _pixels(self.settings["sigma"], size) ** 2)


def _pixels(sigma: float, size: tuple[int, int]) -> float:
    return sigma * max(size) / 64


def _centres(length: int, like: Tensor) -> Tensor:
    return torch.arange(length, device=like.device) + 0.5


def _unlabelled(points_BP3: Tensor) -> Tensor:
    return (points_BP3[..., 2] == UNLABELLED).any(1)


def _peaks(heat_BCHW: Tensor, radius: int, number: int) -> tuple[Tensor, Tensor]:
    """Map heat to its strongest local maxima, strongest first: (x, y) [B, C, K, 2], and whether each is one [B, C, K].

    Max pooling names the first of equal pixels, so a plateau has one peak.
    """
    height, width = heat_BCHW.shape[-2:]
    _, winner = F.max_pool2d(heat_BCHW, 2 * radius + 1, stride=1, padding=radius, return_indices=True)
    place = torch.arange(height * width, device=heat_BCHW.device).view(height, width)
    height_BCK, index_BCK = heat_BCHW.masked_fill(winner != place, -torch.inf).flatten(2).topk(number)
    xy_BCK2 = torch.stack([index_BCK % width, index_BCK // width], -1) + 0.5
    return xy_BCK2, height_BCK.isfinite()


def _found(heat_BCHW: Tensor, points_BP3: Tensor, sigma: float, tolerance: float) -> Tensor:
    """The number of points that a peak finds, and of all points."""
    size = (heat_BCHW.shape[-2], heat_BCHW.shape[-1])
    classes = torch.arange(heat_BCHW.shape[1], device=heat_BCHW.device)
    free_BCP = points_BP3[:, None, :, 2] == classes[:, None]
    number_BC = free_BCP.sum(2)
    peaks_BCK2, is_peak_BCK = _peaks(
        heat_BCHW, max(1, round(_pixels(sigma, size))), min(points_BP3.shape[1], size[0] * size[1])
    )
    distance_BCKP = (peaks_BCK2.unsqueeze(3) - points_BP3[:, None, None, :, :2]).norm(dim=-1)
    hits = torch.zeros_like(number_BC)
    for k in range(peaks_BCK2.shape[2]):
        nearest_BC, point_BC = distance_BCKP[:, :, k].masked_fill(~free_BCP, torch.inf).min(2)
        hit_BC = is_peak_BCK[:, :, k] & (k < number_BC) & (nearest_BC <= tolerance * max(size))
        free_BCP = free_BCP & ~(F.one_hot(point_BC, free_BCP.shape[2]).bool() & hit_BC.unsqueeze(-1))
        hits = hits + hit_BC
    return torch.stack([hits.sum(), number_BC.sum()])
