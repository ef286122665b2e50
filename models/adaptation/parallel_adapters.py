"""Residual adapters in parallel: a convolution of 1 x 1 beside each larger one."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import register_parametrization

from models.adaptation.base import numbers, spatial_convolutions
from models.spec import Setting


def parallel_adapters(blocks: nn.ModuleList, settings: Mapping[str, Setting]) -> None:
    """Make every convolution of more than 1 x 1 conv(x) + A x (parallel residual adapters, Rebuffi et al. 2018).

    A has the convolution's stride and groups and starts at zero.
    """
    numbers("parallel_adapters", settings)
    for layer in spatial_convolutions("parallel_adapters", blocks).values():
        register_parametrization(layer, "weight", _AtCentre(layer.weight))


class _AtCentre(nn.Module):
    """w -> w + A at the centre of its kernel: one convolution that is the sum of both, whatever the padding.

    A kernel of an even size has no centre; of its middle pixels the top left one counts.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        outputs, inputs, height, width = weight.shape
        self.adapter = nn.Parameter(torch.zeros(outputs, inputs, 1, 1))
        left, top = (width - 1) // 2, (height - 1) // 2
        self.around = (left, width - 1 - left, top, height - 1 - top)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + F.pad(self.adapter, self.around)
