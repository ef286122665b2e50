"""What turns a task's location features into its raw output.

Shapes: B batch, C channels, O outputs, H W height and width.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

FINEST_SHUFFLE = 8  # a stride that pixel shuffle takes alone; beyond, it takes 4 and bilinear the rest


class PooledHead(nn.Module):
    """Map location features to one vector per image: mean over the last location's pixels, dropout, linear."""

    def __init__(self, channels: Sequence[int], outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(channels[-1], outputs)

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Map features, finest first, to [B, O]."""
        return self.linear(self.dropout(features[-1].mean((2, 3))))


class PyramidHead(nn.Module):
    """Map location features to one vector per pixel, top-down as in FPN (Lin et al. 2017, Sec. 3).

    All locations meet at the finest one's stride; from there sub-pixel convolution (Shi et al. 2016) goes to full
    resolution. Locations are normalised before they are added: untrained, their scales differ by orders.
    """

    def __init__(self, channels: Sequence[int], reductions: Sequence[int], width: int, outputs: int) -> None:
        super().__init__()
        self.stride = reductions[0]
        shuffle = self.stride if self.stride <= FINEST_SHUFFLE else 4
        self.laterals = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(c, width, 1, bias=False), nn.BatchNorm2d(width)) for c in channels]
        )
        self.smooth = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.project = nn.Conv2d(width, outputs * shuffle**2, 1)
        self.shuffle = nn.PixelShuffle(shuffle)

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Map features, finest first, to [B, O, H, W]."""
        merged = self.laterals[-1](features[-1])
        for lateral, feature in zip(reversed(self.laterals[:-1]), reversed(features[:-1]), strict=True):
            merged = lateral(feature) + _resize(merged, feature.shape[-2:])
        height, width = merged.shape[-2] * self.stride, merged.shape[-1] * self.stride
        output = _resize(self.shuffle(self.project(self.smooth(merged))), (height, width))
        # A backbone pads odd sizes at the right and bottom, its grid is anchored at the top left: cut, don't squeeze.
        if height >= size[0] and width >= size[1]:
            return output[..., : size[0], : size[1]]
        return _resize(output, size)


def _resize(x_BCHW: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(x_BCHW.shape[-2:]) == tuple(size):
        return x_BCHW
    return F.interpolate(x_BCHW, size=tuple(size), mode="bilinear", align_corners=False)
