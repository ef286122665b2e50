"""A Swin that drops paths as timm's own do, small enough for tests, added to timm."""

from typing import Any

from timm.models import register_model
from timm.models.swin_transformer import SwinTransformer

NAME = "swin_noisy_patch4_window4"


@register_model
def swin_noisy_patch4_window4(pretrained: bool = False, **kwargs: Any) -> SwinTransformer:
    """`swin_nano_patch4_window4` with stochastic depth."""
    assert not pretrained
    for unused in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        kwargs.pop(unused, None)
    sizes: dict[str, Any] = {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}
    return SwinTransformer(window_size=4, drop_path_rate=0.2, **sizes, **kwargs)
