"""The thin-omega networks of FAFS, which timm lacks; importing this file adds them to its registry.

VGG-16 (Simonyan and Zisserman 2015) with min(omega, its width) channels and batch norm (Lu et al. 2017, Sec. 3).
"""

from typing import Any

from timm.layers import ClassifierHead
from timm.models import register_model
from timm.models.vgg import VGG
from torch import nn

WIDTHS = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")  # M: max pool
CELLS = 7  # along each side of the map that VGG's first fully connected layer sees


@register_model
def thin_vgg16_32(pretrained: bool = False, **kwargs: Any) -> VGG:
    """Map timm's arguments to the convolutions of thin-32, pooled: for pictures too small for its other layers."""
    return _pooled(32, pretrained, **kwargs)


@register_model
def thin_vgg16_64(pretrained: bool = False, **kwargs: Any) -> VGG:
    """Map timm's arguments to the convolutions of thin-64, pooled: for pictures too small for its other layers."""
    return _pooled(64, pretrained, **kwargs)


@register_model
def thin_vgg16_32_fc(pretrained: bool = False, **kwargs: Any) -> "ThinVGG":
    """Map timm's arguments to the whole thin-32 network, the backbone of Ours-32 (branched paper, Sec. 4.3)."""
    return _whole(32, pretrained, **kwargs)


@register_model
def thin_vgg16_64_fc(pretrained: bool = False, **kwargs: Any) -> "ThinVGG":
    """Map timm's arguments to the whole thin-64 network, the backbone of Ours-64 (branched paper, Sec. 4.3)."""
    return _whole(64, pretrained, **kwargs)


class ThinVGG(VGG):
    """Its two fully connected layers of 2 omega channels stand among its features, as convolutions of 7 x 7 and 1 x 1.

    They hold most of the parameters, and are as much a place to branch at as any layer.
    """

    def __init__(self, omega: int, num_classes: int, global_pool: str) -> None:
        super().__init__(_widths(omega), num_classes=0, norm_layer=nn.BatchNorm2d, mlp_ratio=1 / 4096)
        width = 2 * omega
        first = nn.Sequential(nn.AdaptiveAvgPool2d(CELLS), nn.Conv2d(omega, width, CELLS), nn.ReLU(True))
        self.features.extend([first, nn.Sequential(nn.Conv2d(width, width, 1), nn.ReLU(True))])
        _replace_classifier(self, width, num_classes, global_pool)


def _whole(omega: int, pretrained: bool, num_classes: int = 1000, global_pool: str = "avg", **_rest: Any) -> ThinVGG:
    _refuse_pretrained(f"thin_vgg16_{omega}_fc", pretrained)
    return ThinVGG(omega, num_classes, global_pool)


def _pooled(omega: int, pretrained: bool, num_classes: int = 1000, global_pool: str = "avg", **_rest: Any) -> VGG:
    _refuse_pretrained(f"thin_vgg16_{omega}", pretrained)
    # timm makes fully connected layers of 4096: at this ratio those that go at once are small
    net = VGG(_widths(omega), num_classes=0, norm_layer=nn.BatchNorm2d, mlp_ratio=1 / 4096)
    _replace_classifier(net, net.num_features, num_classes, global_pool)
    return net


def _widths(omega: int) -> list[Any]:
    return [width if isinstance(width, str) else min(omega, width) for width in WIDTHS]


def _replace_classifier(net: VGG, features: int, num_classes: int, global_pool: str) -> None:
    """Put a mean over pixels and one linear layer in the place of timm's fully connected ones."""
    net.num_features = features
    net.pre_logits = nn.Identity()
    net.head = ClassifierHead(features, num_classes, pool_type=global_pool)


def _refuse_pretrained(name: str, pretrained: bool) -> None:
    if pretrained:
        raise ValueError(f"backbone.pretrained: there are no weights for {name}; set it to false")
