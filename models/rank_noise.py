"""Noise of the global batch on each of its ranks, so that one process and many drop the same.

A rank draws the noise of all images from the seed that it shares with the others, and takes that of its own. The same
numbers come out on devices of one kind. T rows of a layer's input, a whole number for each image.
"""

from dataclasses import dataclass

import torch
from timm.layers import DropPath
from torch import Tensor, nn


class Gaussian(nn.Module):
    """Map scales to noise of those scales."""

    def forward(self, scale: Tensor) -> Tensor:
        return torch.randn_like(scale) * scale


@dataclass(kw_only=True)
class RankRows:
    """Which images of the global batch a rank holds: the one of its own number, and every world-th after that.

    `images` is the size of the global batch that comes next.
    """

    rank: int
    world: int
    images: int = 0

    def of(self, whole: Tensor) -> Tensor:
        """Map rows of all images, each image's together, to those of this rank's."""
        return whole.unflatten(0, (self.images, -1))[self.rank :: self.world].flatten(0, 1)

    def whole(self, rows: int) -> int:
        """Map a rank's number of rows to that of all ranks."""
        return rows // len(range(self.rank, self.images, self.world)) * self.images


class RankNoise(nn.Module):
    """A layer that multiplies by what it draws, where it draws for the whole global batch: its noise is f(1)."""

    def __init__(self, layer: nn.Module, rows: RankRows) -> None:
        super().__init__()
        self.layer, self.rows = layer, rows

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return self.layer(input)
        one_each = isinstance(self.layer, DropPath)  # it draws one number for a row
        shape = [1] * (input.dim() - 1) if one_each else input.shape[1:]
        ones = input.new_ones(self.rows.whole(len(input)), *shape)
        if input.dim() == 4 and input.is_contiguous(memory_format=torch.channels_last):
            ones = ones.contiguous(memory_format=torch.channels_last)  # numbers are drawn in the order of memory
        # a copy: the view would keep all ranks' noise until the backward pass
        return input * self.rows.of(self.layer(ones)).clone()


def share_noise(module: nn.Module, rows: RankRows) -> None:
    """Let every layer of a network that draws noise in training draw that of the global batch, in place."""
    for name, child in module.named_children():
        if isinstance(child, DropPath | Gaussian) or (isinstance(child, nn.Dropout) and child.p):
            setattr(module, name, RankNoise(child, rows))
        else:
            share_noise(child, rows)
