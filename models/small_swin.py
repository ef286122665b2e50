"""Swin Transformers (Liu et al. 2021) small enough to train on a CPU, added to timm, whose own begin at "tiny"."""

from typing import Any

from timm.models import register_model
from timm.models.swin_transformer import SwinTransformer


@register_model
def swin_mini_patch4_window4(pretrained: bool = False, **kwargs: Any) -> SwinTransformer:
    """Four stages of 1, 1, 3, 1 layers with 32, 64, 128, 256 channels: half as deep as Swin-T, a third as wide."""
    return _swin(pretrained, embed_dim=32, depths=(1, 1, 3, 1), num_heads=(1, 2, 4, 8), **kwargs)


@register_model
def swin_nano_patch4_window4(pretrained: bool = False, **kwargs: Any) -> SwinTransformer:
    """Four stages of 1, 1, 2, 1 layers with 16, 32, 64, 128 channels: for tests."""
    return _swin(pretrained, embed_dim=16, depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8), **kwargs)


def _swin(pretrained: bool, **kwargs: Any) -> SwinTransformer:
    if pretrained:
        raise ValueError("backbone.pretrained: the small Swin networks have no weights; set it to false")
    for unused in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        kwargs.pop(unused, None)
    return SwinTransformer(window_size=4, drop_path_rate=0.0, **kwargs)
