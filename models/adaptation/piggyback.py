"""Piggyback: one bit for each weight of the base, whether the task uses it."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from models.adaptation.base import numbers
from models.gating import KINDS
from models.spec import Setting

START = 0.01  # of every score: all weights are in use
THRESHOLD = 0.005


def piggyback(blocks: nn.ModuleList, settings: Mapping[str, Setting]) -> None:
    """Put a learned binary mask over the frozen weights of every layer (Piggyback, Mallya et al. 2018, Sec. 3)."""
    numbers("piggyback", settings)
    for layer in [module for module in blocks.modules() if isinstance(module, KINDS)]:
        register_parametrization(layer, "weight", _Mask(layer.weight))


class _Mask(nn.Module):
    """w -> w 1[m >= threshold] for real-valued scores m; straight-through, dL/dm is that of w m."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.full_like(weight, START))

    def forward(self, weight: Tensor) -> Tensor:
        mask = (self.scores >= THRESHOLD).to(weight.dtype)
        # The bracket is zero and has a gradient of one.
        return weight * (mask + (self.scores - self.scores.detach()))
