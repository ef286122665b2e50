"""What a way of adapting is, and what several of them need."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from models.spec import Setting


@dataclass(frozen=True)
class Adaptation:
    """A way to adapt a frozen base network to one task.

    `apply(blocks, settings)` takes the blocks of a base, all parameters frozen, and in place marks what trains and adds
    what is added; the base's own tensors stay the objects that they were. `bits`: what one trained weight of a layer
    takes on disk. `norms`: normalisation layers, statistics too, are the task's own; `apply` need not mark them.
    `decays`: weight decay may act on what trains.
    """

    apply: Callable[[nn.ModuleList, Mapping[str, Setting]], None]
    bits: float = 32
    norms: bool = True
    decays: bool = True


def numbers(method: str, given: Mapping[str, Setting], **defaults: Setting | None) -> dict[str, float]:
    """Map a method's settings as given to all that it knows; a default of None is for one that must be given."""
    if unknown := given.keys() - defaults.keys():
        known = f"it has {', '.join(defaults)}" if defaults else "it has none"
        raise ValueError(f"{method} has no setting {', '.join(sorted(unknown))}; {known}")
    found = {}
    for name, value in {**defaults, **given}.items():
        if value is None:
            raise ValueError(f"{method}: give the setting {name}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{method}: {name} must be a number, not {value!r}")
        found[name] = value
    return found


def spatial_convolutions(method: str, blocks: nn.ModuleList) -> dict[str, nn.Conv2d]:
    """Map blocks to their convolutions of more than one pixel by name, those that residual adapters go with.

    An adapter is a convolution of 1 x 1; beside one of 1 x 1, or a linear layer, it would be as large as the layer.
    """
    found = {
        name: layer
        for name, layer in blocks.named_modules()
        if isinstance(layer, nn.Conv2d) and max(layer.kernel_size) > 1
    }
    if not found:
        raise ValueError(f"{method}: the backbone has no convolution of more than 1 x 1 to adapt")
    return found


def show_geometry(wrapper: nn.Module, layer: nn.modules.conv._ConvNd | nn.Linear) -> None:
    """Give what stands in a layer's place its constants, kernel size and the like, which some networks read."""
    for name in layer.__constants__:
        setattr(wrapper, name, getattr(layer, name))
