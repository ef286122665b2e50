"""Weights for a layer of experts out of another layer of experts, or out of the MLP that it replaces.

E experts, H hidden, C channels.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from models.experts import MoEMlp, key


@torch.no_grad()
def upcycle(layer: MoEMlp, mlp: Mapping[str, Tensor]) -> None:
    """Make a layer's experts slices of an MLP's hidden layer, and its routers undecided (Komatsuzaki et al. 2023).

    Every gate is then 1/E, which the second layers make up for: where each slice is chosen once the layer is the MLP.
    ValueError where an expert is no even part of the MLP or cannot hold its biases.
    """
    numbers = [int(name) for name in layer.names]
    hidden, whole = layer.expert(numbers[0]).fc1.weight.shape[0], mlp["fc1.weight"].shape[0]
    if whole % hidden or ("fc1.bias" in mlp) != (layer.expert(numbers[0]).fc1.bias is not None):
        raise ValueError(
            f"upcycled: experts of {hidden} hidden channels are no slices of an MLP of {whole}, or lack its biases; "
            "use hidden: 0 and expert_bias: true"
        )
    slices, top_k = whole // hidden, max(layer.router(name).top_k for name in layer.numbers)
    for place, number in enumerate(numbers):
        expert, rows = layer.expert(number), slice(place % slices * hidden, (place % slices + 1) * hidden)
        expert.fc1.weight.copy_(mlp["fc1.weight"][rows])
        expert.fc2.weight.copy_(mlp["fc2.weight"][:, rows] * (len(numbers) * slices / top_k))
        if expert.fc1.bias is not None and expert.fc2.bias is not None:
            expert.fc1.bias.copy_(mlp["fc1.bias"][rows])
            expert.fc2.bias.copy_(mlp["fc2.bias"] * (len(numbers) / top_k))
    for name in layer.numbers:
        layer.router(name).weight.zero_()


@torch.no_grad()
def take_experts(layer: MoEMlp, other: Mapping[str, Tensor], routes: Mapping[str, Sequence[int]]) -> None:
    """Fill a layer with what another's state holds of it: experts by number, routers and estimates by data set.

    Routers and estimates are cut down to the experts that are left; what the other lacks stays as it is. `routes` gives
    the experts of the other's routers; those that it does not name have all. ValueError where that can't be.
    """
    theirs = sorted({int(name.split(".")[1]) for name in other if name.startswith("experts.")})
    for number in theirs:
        if str(number) in layer.names:
            layer.expert(number).load_state_dict(below(other, f"experts.{number}."))
    ours = [int(name) for name in layer.names]
    for name, chosen in layer.numbers.items():
        weight = other.get(f"routers.{key(name)}.weight")
        router = layer.router(name)
        if weight is not None:
            rows = list(routes.get(name, theirs))
            if weight.shape[0] * router.experts != router.weight.shape[0] * len(rows):
                raise ValueError(
                    f"the router of data set {name} to start from is not for all experts of its network, or of another"
                    " router_width; start from a network of that data set alone, with the same settings"
                )
            both = [number for number in chosen if number in rows]
            mine, scores = (
                w.view(-1, size, w.shape[1]) for w, size in ((router.weight, len(chosen)), (weight, len(rows)))
            )
            mine[:, [chosen.index(number) for number in both]] = scores[:, [rows.index(number) for number in both]]
    for name in layer.estimates.names:
        row = other.get(f"estimates.{key(name)}")
        if row is not None:
            known = torch.tensor([float(row[theirs.index(n)]) if n in theirs else 0.0 for n in ours])
            layer.estimates.get_buffer(key(name)).copy_(F.normalize(known, p=1, dim=0))
    adapter = below(other, "adapter.")
    if adapter and any(True for _ in layer.adapter.parameters()):
        layer.adapter.load_state_dict(adapter)


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Map tensors by name to those of one part of a network, by their names in it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
