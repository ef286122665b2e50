"""Low-rank adaptation of every layer, through peft."""

import re
from collections.abc import Mapping

from torch import nn

from models.adaptation.base import numbers, show_geometry
from models.gating import KINDS
from models.spec import Setting


def lora(blocks: nn.ModuleList, settings: Mapping[str, Setting]) -> None:
    """Add alpha / rank * B A to the frozen weights of convolutions and linear layers (LoRA, Hu et al. 2022, Sec. 4.1).

    B starts at zero, A at random. Convolutions with groups stay frozen: peft wants a rank that their groups divide.
    """
    chosen = numbers("lora", settings, rank=4, alpha=settings.get("rank", 4))
    rank = int(chosen["rank"])
    if rank < 1 or rank != chosen["rank"]:
        raise ValueError(f"lora: rank must be a whole number of at least 1, not {chosen['rank']}")
    try:
        from peft import LoraConfig, inject_adapter_in_model  # takes seconds to import, so only where it is used
    except ImportError:
        raise ValueError("lora needs peft, which isn't installed: install the extra coppice[lora]") from None
    layers = {
        name: layer
        for name, layer in blocks.named_modules()
        if isinstance(layer, KINDS) and (isinstance(layer, nn.Linear) or layer.groups == 1)
    }
    # A list would match endings of names too, "0.1" that of "3.0.1"; a string is a pattern for the whole name.
    pattern = "|".join(re.escape(name) for name in layers)
    alpha: int = chosen["alpha"]  # pyright: ignore[reportAssignmentType] - peft only ever divides it by the rank
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=pattern), blocks)
    for name, layer in layers.items():
        show_geometry(blocks.get_submodule(name), layer)
