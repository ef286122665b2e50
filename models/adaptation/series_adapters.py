"""Residual adapters in series: a small residual layer after each convolution.

B batch, C channels, H W height and width.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from models.adaptation.base import numbers, show_geometry, spatial_convolutions
from models.spec import Setting


def series_adapters(blocks: nn.ModuleList, settings: Mapping[str, Setting]) -> None:
    """Follow every convolution of more than 1 x 1 with y + A y (residual adapters, Rebuffi et al. 2017, Fig. 2).

    A starts at zero. It has the convolution's groups: beside a depth-wise one a full A would be many times as large.
    """
    numbers("series_adapters", settings)
    for name, layer in spatial_convolutions("series_adapters", blocks).items():
        blocks.set_submodule(name, _Adapted(layer))


class _Adapted(nn.Module):
    """x -> y + A BN(y) with y = layer(x); the batch norm is the adapter's own, the network's own one comes after."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer = layer
        self.norm = nn.BatchNorm2d(layer.out_channels)
        self.adapter = nn.Conv2d(layer.out_channels, layer.out_channels, 1, groups=layer.groups, bias=False)
        nn.init.zeros_(self.adapter.weight)
        show_geometry(self, layer)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.layer(x_BCHW)
        return y_BCHW + self.adapter(self.norm(y_BCHW))
