"""A network whose Python never looks at a value, so that `torch.export` can follow it for any images.

T tokens, E experts, K experts per token, A anchors.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from models.detection_head import RetinaHead
from models.experts import MoEMlp, key
from models.sharing import SharedModel
from models.sharing.moe import MoeModel
from models.sharing.taps import TapsModel


def static_network(network: SharedModel, size: tuple[int, int]) -> nn.Module:
    """Map a network to a copy in evaluation mode with the same outputs: images of a size -> {task: raw output}."""
    kept = deepcopy(network.kept()).eval()
    static = STATIC.get(kept.spec.strategy, _itself)(kept)
    hooks = [head.register_forward_hook(_fix_anchors) for head in static.modules() if isinstance(head, RetinaHead)]
    if hooks:
        with torch.no_grad():
            static(torch.zeros(1, 3, *size, device=kept.mean.device))
    for hook in hooks:
        hook.remove()
    return static.eval()


def _itself(network: nn.Module) -> nn.Module:
    return network


class _SideBySide(nn.Module):
    """Networks for some of the tasks each; what they share of a base is one tensor, and run once for each of them."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {name: output for network in self.networks for name, output in network(images).items()}


def _merge_tasks(network: TapsModel) -> nn.Module:
    """Map a base and its tasks to their merged networks: which layers a gate opens is decided here, once."""
    merged = []
    for task in network.spec.task_names:
        with torch.no_grad():
            own = network.of(task).tensors(network.base)
        plain = network.merged(task)
        for name, tensor in network.base.named_parameters():
            if name not in own:
                location, _, path = name.partition(".")
                layer, _, last = path.rpartition(".")
                plain.blocks.get_submodule(f"{location}.0.{layer}").register_parameter(last, tensor)  # pyright: ignore[reportArgumentType]
        merged.append(plain)
    return _SideBySide(merged)


class DenseMixture(nn.Module):
    """A mixture of experts in which every expert sees every token, behind a gate of zero where it was not chosen.

    It is the same sum (MTHL, Eq. 1) at E / K times the products: which expert is sent how many tokens is a value.
    Experts that the same data sets may choose are one wide MLP, so each is held once.
    """

    def __init__(self, mixture: MoEMlp) -> None:
        super().__init__()
        self.dataset, self.numbers = mixture.dataset, mixture.numbers
        self.routers, self.adapter = mixture.routers, mixture.adapter
        users: dict[tuple[str, ...], list[int]] = {}
        for number in map(int, mixture.names):
            users.setdefault(tuple(name for name, own in self.numbers.items() if number in own), []).append(number)
        self.users = list(users.items())
        self.groups = nn.ModuleList(_WideMlp([mixture.expert(n) for n in numbers]) for numbers in users.values())

    def forward(self, x: Tensor) -> Tensor:
        x_TC = x.flatten(0, -2)
        gate_TK, choice_TK, probs_TE = self.routers[key(self.dataset)](x_TC)
        gate_TE = torch.zeros_like(probs_TE).scatter(1, choice_TK, gate_TK).to(x_TC.dtype)
        y_TC = torch.zeros_like(x_TC)
        for (names, numbers), group in zip(self.users, self.groups, strict=True):
            if self.dataset in names:
                places = [self.numbers[self.dataset].index(number) for number in numbers]
                y_TC = y_TC + group(x_TC, torch.stack([gate_TE[:, place] for place in places], 1))
        return self.adapter(y_TC.reshape(x.shape))


class _WideMlp(nn.Module):
    """Tokens [T, C] and gates [T, E] -> the gated sum of E small MLPs, as one of their common width."""

    fc1_weight: Tensor
    fc2_weight: Tensor
    fc1_bias: Tensor | None
    fc2_bias: Tensor | None

    def __init__(self, experts: Sequence[Mlp]) -> None:
        super().__init__()
        for name, dim in (("fc1", 0), ("fc2", 1)):
            layers = [getattr(expert, name) for expert in experts]
            self.register_buffer(f"{name}_weight", torch.cat([layer.weight.detach() for layer in layers], dim))
            biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
            self.register_buffer(f"{name}_bias", torch.stack(biases) if biases else None)
        self.width = self.fc1_weight.shape[0] // len(experts)

    def forward(self, x_TC: Tensor, gate_TE: Tensor) -> Tensor:
        bias = None if self.fc1_bias is None else self.fc1_bias.flatten()
        hidden = F.gelu(F.linear(x_TC, self.fc1_weight, bias)) * gate_TE.repeat_interleave(self.width, 1)
        y_TC = F.linear(hidden, self.fc2_weight)
        return y_TC if self.fc2_bias is None else y_TC + gate_TE @ self.fc2_bias


class _OneDataset(nn.Module):
    """A network with experts on one data set: its routers, its tasks. What data sets share is one tensor."""

    def __init__(self, network: MoeModel, dataset: str) -> None:
        super().__init__()
        tensors = (*network.parameters(), *network.buffers())
        self.network = deepcopy(network, {id(tensor): tensor for tensor in tensors})
        self.names = [task.name for task in network.spec.tasks if task.dataset == dataset]
        self.network.layers = {}  # so that nothing chooses a data set while it runs
        for module in self.network.modules():
            if isinstance(module, DenseMixture):
                module.dataset = dataset

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.network(images, self.names)


def _run_all_experts(network: MoeModel) -> nn.Module:
    for path, layer in list(network.blocks.named_modules()):
        if isinstance(layer, MoEMlp):
            network.blocks.set_submodule(path, DenseMixture(layer))
    network.layers = {}
    return _SideBySide([_OneDataset(network, dataset) for dataset in network.datasets])


class _FixedAnchors(nn.Module):
    """The anchors of images of one size, in the place of what makes them."""

    boxes_A4: Tensor

    def __init__(self, boxes_A4: Tensor) -> None:
        super().__init__()
        self.register_buffer("boxes_A4", boxes_A4)

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        assert (self.boxes_A4.dtype, self.boxes_A4.device) == (dtype, device)

    def grid_anchors(self, grids: Sequence[Any], strides: Sequence[Any]) -> list[Tensor]:
        assert len(grids) == len(strides)
        return [self.boxes_A4]


def _fix_anchors(head: nn.Module, _: Any, output: Tensor) -> None:
    """Give a head the anchors that stand in its raw output; the last row is the image."""
    head.anchors = _FixedAnchors(output[0, :-1, -4:].clone())


STATIC: dict[str, Callable[[Any], nn.Module]] = {"taps": _merge_tasks, "moe": _run_all_experts}
