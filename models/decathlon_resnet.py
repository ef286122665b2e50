"""The ResNet-26 of the Visual Decathlon and thinner ones, which timm lacks; importing this file adds them to it.

B batch, C channels, H W height and width.
"""

from itertools import pairwise
from typing import Any

from timm.layers import ClassifierHead
from timm.models import register_model
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (32, 64, 128, 256)  # the stem, then the three groups
DEPTH = 4  # basic blocks in a group


@register_model
def decathlon_resnet26(pretrained: bool = False, **kwargs: Any) -> "DecathlonResNet":
    """Map timm's arguments to the network that TAPS trains on the Visual Decathlon (Sec. 4.1; its WideResNet-28)."""
    return _decathlon_resnet("decathlon_resnet26", 1, pretrained, **kwargs)


@register_model
def decathlon_resnet26_half(pretrained: bool = False, **kwargs: Any) -> "DecathlonResNet":
    """Map timm's arguments to that network with half the channels, about a quarter of its parameters."""
    return _decathlon_resnet("decathlon_resnet26_half", 2, pretrained, **kwargs)


@register_model
def decathlon_resnet26_quarter(pretrained: bool = False, **kwargs: Any) -> "DecathlonResNet":
    """Map timm's arguments to that network with a quarter of the channels, about a sixteenth of its parameters."""
    return _decathlon_resnet("decathlon_resnet26_quarter", 4, pretrained, **kwargs)


class DecathlonResNet(nn.Module):
    """Images [B, 3, H, W] -> logits, through 25 convolutions of 3 x 3 (Rebuffi et al. 2017).

    A stem at full resolution without a ReLU, three groups of basic blocks that each begin with stride 2, and a last
    batch norm with ReLU. No convolution has a bias, each has its batch norm, and no shortcut has parameters.
    """

    def __init__(self, widths: tuple[int, ...], num_classes: int, global_pool: str) -> None:
        super().__init__()
        self.num_features = widths[-1]
        self.conv1 = _conv3x3(3, widths[0], 1)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1, self.layer2, self.layer3 = (_group(before, after) for before, after in pairwise(widths))
        self.norm = nn.BatchNorm2d(self.num_features)
        self.act = nn.ReLU()
        self.head = ClassifierHead(self.num_features, num_classes, pool_type=global_pool)

    def forward_features(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] -> features [B, C, H / 8, W / 8], rounded up."""
        groups = self.layer3(self.layer2(self.layer1(self.bn1(self.conv1(images)))))
        return self.act(self.norm(groups))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.forward_features(images))


class _BasicBlock(nn.Module):
    """Two convolutions beside a shortcut: pooled by 2 and padded with zero channels where the block changes shape."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(before, after, stride)
        self.bn1 = nn.BatchNorm2d(after)
        self.act1 = nn.ReLU()
        self.conv2 = _conv3x3(after, after, 1)
        self.bn2 = nn.BatchNorm2d(after)
        self.act2 = nn.ReLU()
        self.stride, self.new_channels = stride, after - before

    def forward(self, state: Tensor) -> Tensor:
        change = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(state)))))
        if self.stride > 1:
            # a convolution of stride 2 rounds odd sizes up: so must the pooling
            pooled = functional.avg_pool2d(state, self.stride, ceil_mode=True)
            state = functional.pad(pooled, (0, 0, 0, 0, 0, self.new_channels))
        return self.act2(change + state)


def _decathlon_resnet(
    name: str, divisor: int, pretrained: bool, num_classes: int = 1000, global_pool: str = "avg", **_rest: Any
) -> DecathlonResNet:
    if pretrained:
        raise ValueError(f"backbone.pretrained: there are no weights for {name}; set it to false")
    return DecathlonResNet(tuple(width // divisor for width in WIDTHS), num_classes, global_pool)


def _group(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(_BasicBlock(before, after, 2), *(_BasicBlock(after, after, 1) for _ in range(DEPTH - 1)))


def _conv3x3(before: int, after: int, stride: int) -> nn.Conv2d:
    """A convolution with the first weights of He et al. 2015, by its outputs."""
    conv = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
