"""The thin-omega networks of FAFS, which timm lacks; importing this file adds them to its registry."""

from typing import Any

from timm.layers import ClassifierHead
from timm.models import register_model
from timm.models.vgg import VGG
from torch import nn

WIDTHS = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")  # M: max pool


@register_model
def thin_vgg16_32(pretrained: bool = False, **kwargs: Any) -> VGG:
    """Map timm's arguments to the thin-32 network, the backbone of Ours-32 (branched paper, Sec. 4.3)."""
    return _thin_vgg(32, pretrained, **kwargs)


@register_model
def thin_vgg16_64(pretrained: bool = False, **kwargs: Any) -> VGG:
    """Map timm's arguments to the thin-64 network, the backbone of Ours-64 (branched paper, Sec. 4.3)."""
    return _thin_vgg(64, pretrained, **kwargs)


def _thin_vgg(omega: int, pretrained: bool, num_classes: int = 1000, global_pool: str = "avg", **_rest: Any) -> VGG:
    """VGG-16 (Simonyan and Zisserman 2015) with min(omega, its width) channels and batch norm (Lu et al. 2017, Sec. 3).

    The fully connected layers are left out, pooling takes their place: those of the papers' networks hold most of their
    parameters. So no tree of it compares with the 2.20 M that the branched paper prints for Ours-32 (Table 3).
    """
    if pretrained:
        raise ValueError(f"backbone.pretrained: there are no weights for thin_vgg16_{omega}; set it to false")
    widths = [width if isinstance(width, str) else min(omega, width) for width in WIDTHS]
    # timm makes fully connected layers of 4096: at this ratio those that go at once are small
    net = VGG(widths, num_classes=0, norm_layer=nn.BatchNorm2d, mlp_ratio=1 / 4096)
    net.pre_logits = nn.Identity()
    net.head = ClassifierHead(net.num_features, num_classes, pool_type=global_pool)
    return net
