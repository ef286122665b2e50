"""Ways of adapting that add nothing: some of the base's own weights train, the rest stay frozen."""

from collections.abc import Mapping

from torch import nn

from models.adaptation.base import numbers
from models.gating import gated_layers
from models.spec import Setting


def fine_tuning(blocks: nn.ModuleList, settings: Mapping[str, Setting]) -> None:
    """Every weight of the base trains (TAPS, Sec. 4.1)."""
    numbers("fine_tuning", settings)
    blocks.requires_grad_(True)


def feature_extractor(_blocks: nn.ModuleList, settings: Mapping[str, Setting]) -> None:
    """Nothing of the base trains, only the head on it (TAPS, Sec. 4.1)."""
    numbers("feature_extractor", settings)


def norm_only(_blocks: nn.ModuleList, settings: Mapping[str, Setting]) -> None:
    """No layer trains beside the normalisation layers, which are the task's own ("BN" in TAPS, App. E)."""
    numbers("norm_only", settings)


def manual_freezing(blocks: nn.ModuleList, settings: Mapping[str, Setting]) -> None:
    """The last layers train, as many as hold at most `weights` parameters, the layers before are frozen (TAPS, App. E).

    A layer is what TAPS gates, weight and bias together, in the same order. Layers are taken whole, from the last one
    backwards; the first that would exceed the bound ends it, even if a smaller one before it would still fit.
    """
    left = numbers("manual_freezing", settings, weights=None)["weights"]
    if left < 0:
        raise ValueError(f"manual_freezing: weights must be at least 0, not {left}")
    for layer in reversed(gated_layers(blocks, ("*",))):
        parameters = [blocks.get_parameter(name) for name in layer.parameters]
        left -= sum(parameter.numel() for parameter in parameters)
        if left < 0:
            break
        for parameter in parameters:
            parameter.requires_grad_(True)
