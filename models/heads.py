"""What turns a task's location features into its raw output.

Shapes: B batch, C channels, O outputs, H W height and width.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation.deeplabv3 import ASPP

POOLING_BINS = (1, 2, 3, 6)  # cells along each side
REACHES = (96, 192, 288)  # pixels between the taps of the dilated convolutions; at stride 16 rates of 6, 12 and 18
FEWEST_LOCATIONS = 3  # of UperNet
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
        return _to_image(self.shuffle(self.project(self.smooth(merged))), merged, self.stride, size)


class PyramidPoolingHead(nn.Module):
    """Map the last location's features to one vector per pixel, as PSPNet (Zhao et al. 2017, Sec. 3.2).

    The map and its means over 1, 4, 9 and 36 cells, each of those brought to `width` channels, meet in one 3 x 3
    convolution. It is the head of the branched paper's Cityscapes networks, there with a width of 512.
    """

    def __init__(self, channels: Sequence[int], reductions: Sequence[int], width: int, outputs: int) -> None:
        super().__init__()
        self.stride = reductions[-1]
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bins), *_convolution(channels[-1], width, 1)) for bins in POOLING_BINS
        )
        self.merge = nn.Sequential(*_convolution(channels[-1] + len(POOLING_BINS) * width, width, 3))
        self.project = nn.Conv2d(width, outputs, 1)

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Map features, finest first, to [B, O, H, W]."""
        last = features[-1]
        pooled = [_resize(pool(last), last.shape[-2:]) for pool in self.pools]
        return _to_image(self.project(self.merge(torch.cat([last, *pooled], 1))), last, self.stride, size)


class DeepLabHead(nn.Module):
    """Map the last location's features to one vector per pixel, as DeepLabv3 (Chen et al. 2017, Sec. 3.3).

    Convolutions of several dilations and the image's mean, each of `width` channels, 256 in the paper, meet in one
    3 x 3 convolution. Dilations follow the stride, so that they reach equally far in the image as the paper's. It is
    normalised image by image: the mean of one image is one pixel, which a batch of one could not normalise.
    """

    def __init__(self, channels: Sequence[int], reductions: Sequence[int], width: int, outputs: int) -> None:
        super().__init__()
        self.stride = reductions[-1]
        rates = [max(1, round(reach / self.stride)) for reach in REACHES]
        self.merge = nn.Sequential(ASPP(channels[-1], rates, width), *_convolution(width, width, 3))
        _normalise_by_image(self.merge)
        self.project = nn.Conv2d(width, outputs, 1)

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Map features, finest first, to [B, O, H, W]."""
        return _to_image(self.project(self.merge(features[-1])), features[-1], self.stride, size)


class UperNetHead(nn.Module):
    """Map location features to one vector per pixel, as UperNet (Xiao et al. 2018, Sec. 3).

    Pyramid pooling of the last location goes top-down through the others; all levels meet at the finest. It is
    normalised image by image, since the batches that such a head is trained on are small.
    """

    def __init__(self, channels: Sequence[int], reductions: Sequence[int], width: int, outputs: int) -> None:
        super().__init__()
        if len(channels) < FEWEST_LOCATIONS:
            raise ValueError(
                f"head 'upernet' needs {FEWEST_LOCATIONS} locations or more, but backbone.locations is {len(channels)};"
                " raise it, or take another head"
            )
        # seconds where it is not yet in the disk's cache, and no other head needs it
        from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder

        self.stride = reductions[0]
        # The decoder leaves out two features finer than those it uses, and counts one of them.
        self.decoder = UPerNetDecoder([0, 0, *channels], len(channels) + 1, width)
        _normalise_by_image(self.decoder)
        self.project = nn.Conv2d(width, outputs, 1)

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Map features, finest first, to [B, O, H, W]."""
        merged = self.decoder([features[0], features[0], *features])
        return _to_image(self.project(merged), merged, self.stride, size)


DENSE_HEADS: dict[str, Callable[[Sequence[int], Sequence[int], int, int], nn.Module]] = {
    "fpn": PyramidHead,
    "psp": PyramidPoolingHead,
    "deeplab": DeepLabHead,
    "upernet": UperNetHead,
}


def _convolution(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _normalise_by_image(module: nn.Module) -> None:
    """Put a normalisation over an image's channels and pixels in the place of every one over the batch."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.GroupNorm(1, child.num_features))
        else:
            _normalise_by_image(child)


def _to_image(output: Tensor, feature: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Bring an output to the pixels of the image that a feature map of a stride came from."""
    height, width = feature.shape[-2] * stride, feature.shape[-1] * stride
    output = _resize(output, (height, width))
    # A backbone pads odd sizes at the right and bottom, its grid is anchored at the top left: cut, don't squeeze.
    if height >= size[0] and width >= size[1]:
        return output[..., : size[0], : size[1]]
    return _resize(output, size)


def _resize(x_BCHW: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(x_BCHW.shape[-2:]) == tuple(size):
        return x_BCHW
    return F.interpolate(x_BCHW, size=tuple(size), mode="bilinear", align_corners=False)
