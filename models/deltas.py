"""What a task holds of its own beside a base, as named tensors, and back (TAPS, Wallingford et al. 2022, Eq. 1).

The names of a delta: those of the base's tensors that it replaces, "head.<name>" for the head's, and "scores" [L] for
L gated layers. Laying a delta over the base's tensors by name gives the task's network.
"""

from collections.abc import Mapping
from hashlib import sha256

import torch
from torch import Tensor

from models.sharing.taps import TapsModel

SHOWN = 3  # of the tensors that do not fit


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Map named tensors to the first 16 digits of a sha256 of their names, types, shapes and bytes."""
    total = sha256()
    for name, tensor in sorted(tensors.items()):
        plain = tensor.detach().cpu().contiguous()
        total.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        total.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()[:16]


def delta_of(network: TapsModel, task: str) -> dict[str, Tensor]:
    """Map a task to its delta; a layer whose gate is closed is the base's and not in it.

    Layers are stored as effective weights, w + δ: as many bytes as δ and, of a base that trained too, the very sums
    that the network used.
    """
    own, head = network.of(task), network.heads[network.spec.task_names.index(task)]
    with torch.no_grad():
        tensors = own.tensors(network.base)
    tensors |= {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in (tensors | {"scores": own.scores}).items()}


def restore(network: TapsModel, task: str, delta: Mapping[str, Tensor]) -> None:
    """Fill a task of a network with a frozen base from its delta. ValueError names what is missing, extra or unlike."""
    own, head = network.of(task), network.heads[network.spec.task_names.index(task)]
    assert own.frozen, "a delta holds effective weights"
    with torch.no_grad():
        fill({"scores": own.scores}, {name: delta[name] for name in ("scores",) if name in delta})
        own.restart(network.base)
        places = own.tensors(network.base) | {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
        fill(places | {"scores": own.scores}, delta)


def fill(places: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Copy tensors to where they belong. ValueError unless names, types and shapes agree."""
    refuse_misfits(places, found)
    for name, place in places.items():
        place.copy_(found[name])


def refuse_misfits(places: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """ValueError unless the names, types and shapes of tensors and of their places agree."""
    both = places.keys() & found.keys()
    unlike = [
        f"{name} is {_form(found[name])}, not {_form(places[name])}"
        for name in sorted(both)
        if _form(found[name]) != _form(places[name])
    ]
    faults = [
        _some("missing", sorted(places.keys() - both)),
        _some("not of this network", sorted(found.keys() - both)),
        _some("unlike", unlike),
    ]
    if any(faults):
        raise ValueError("; ".join(fault for fault in faults if fault))


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _some(fault: str, names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{fault}: {', '.join(names[:SHOWN])}{more}" if names else ""
