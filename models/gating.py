"""A task's own weights for the layers of any network, each behind a gate (TAPS, Wallingford et al. 2022, Sec. 3).

The network stays as it is: for one forward pass a task's tensors are put in place of its own, so its class, its code
and its base weights are never touched, and another task costs no copy of it. L gated layers.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

KINDS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True)
class GatedLayer:
    """One layer of a network: its name for people, its class, and its parameters by their names in the network."""

    name: str
    kind: str
    parameters: tuple[str, ...]


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a normalisation layer: one of torch's, or one that is named so and has tensors of its own."""
    if isinstance(module, nn.modules.batchnorm._NormBase | nn.LayerNorm | nn.GroupNorm):
        return True
    return "Norm" in type(module).__name__ and next(module.parameters(recurse=False), None) is not None


def gated_layers(
    network: nn.Module, patterns: Sequence[str], names: Mapping[str, str] | None = None
) -> list[GatedLayer]:
    """Map a network to its layers that match the glob patterns, in its own order: convolutions, linear, q-k-v.

    Of several patterns the last that matches decides; one that begins with "!" leaves layers out. A layer's bias goes
    with its weight. `names` renames modules by their path. ValueError where a pattern or all of them match nothing.
    """
    found, unused = [], set(patterns)
    for path, kind, parameters in _layers(network):
        name = (names or {}).get(path, path)
        matching = [pattern for pattern in patterns if fnmatchcase(name, pattern.removeprefix("!"))]
        unused.difference_update(matching)
        if matching and not matching[-1].startswith("!"):
            found.append(GatedLayer(name, kind, tuple(f"{path}.{own}" for own in parameters)))
    if wrong := [pattern for pattern in patterns if pattern in unused and not pattern.startswith("!")]:
        raise ValueError(f"no layer of the backbone matches {', '.join(wrong)}")
    if not found:
        raise ValueError(f"{', '.join(patterns)} leave no layer of the backbone to gate")
    return found


def _layers(network: nn.Module) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    for path, module in network.named_modules():
        own = tuple(name for name, _ in module.named_parameters(recurse=False))
        if isinstance(module, KINDS):
            yield path, type(module).__name__, own
        elif isinstance(module, nn.MultiheadAttention):  # keeps the q-k-v weights itself, its projection as a layer
            yield path, "QKV", own


class TaskWeights(nn.Module):
    """What one task holds of its own for a network: weights and scores of gated layers, all normalisation layers.

    A layer whose score s reaches the threshold is the task's own, any other is the base's (Eq. 1 and 2). Where the base
    is `frozen`, `weights` are the effective ones, w + δ: they are used as they are, nothing is added in a step, and δ
    is their difference from the base. Where the base trains too (Eq. 4), `weights` are δ.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[GatedLayer],
        *,
        threshold: float,
        score: float,
        frozen: bool,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__()
        self.layers, self.threshold, self.frozen, self.weight_decay = list(layers), threshold, frozen, weight_decay
        bases = [network.get_parameter(name) for layer in layers for name in layer.parameters]
        self.scores = nn.Parameter(torch.full((len(layers),), score))
        self.weights = nn.ParameterList(base.detach().clone() if frozen else torch.zeros_like(base) for base in bases)
        norms = [(path, module) for path, module in network.named_modules() if is_norm(module)]
        self.paths = [path for path, _ in norms]
        self.norms = nn.ModuleList(deepcopy(module) for _, module in norms)
        self.norms.requires_grad_(True)

    def restart(self, network: nn.Module) -> None:
        """Begin again at a network's weights: every δ zero, every normalisation layer as there."""
        with torch.no_grad():
            for name, weight in self._named_weights():
                weight.copy_(network.get_parameter(name)) if self.frozen else weight.zero_()
        for path, norm in zip(self.paths, self.norms, strict=True):
            norm.load_state_dict(network.get_submodule(path).state_dict())

    def drop_closed(self, network: nn.Module) -> None:
        """Put the base's tensors where a gate is closed, and let go of what stood there: for predicting only."""
        assert self.frozen
        names = [name for name, _ in self._named_weights()]
        closed = [
            not is_open for layer, is_open in zip(self.layers, self.gates(), strict=True) for _ in layer.parameters
        ]
        for index, (name, is_closed) in enumerate(zip(names, closed, strict=True)):
            if is_closed:
                self.weights[index] = network.get_parameter(name)

    def gates(self) -> list[bool]:
        """I(s) of every layer (Eq. 2)."""
        return (self.scores >= self.threshold).tolist()

    def tensors(self, network: nn.Module) -> dict[str, Tensor]:
        """What stands in place of the network's tensors for this task, by name; without gradients only what differs.

        For `torch.func.functional_call` with tie_weights=False: a layer may be in two places.
        """
        tracked = torch.is_grad_enabled() and self.scores.requires_grad
        found: dict[str, Tensor] = {}
        weights = self._named_weights()
        for layer, is_open, score in zip(self.layers, self.gates(), self.scores.unbind(), strict=True):
            for _ in layer.parameters:
                name, own = next(weights)
                if tracked:
                    base = network.get_parameter(name)
                    found[name] = self._gated(own, base, score, is_open)
                elif is_open:
                    found[name] = own if self.frozen else network.get_parameter(name) + own
        return found | dict(self.norm_tensors())

    def norm_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers of the task's normalisation layers by their names in the network."""
        for path, norm in zip(self.paths, self.norms, strict=True):
            for name, tensor in (*norm.named_parameters(recurse=False), *norm.named_buffers(recurse=False)):
                yield f"{path}.{name}", tensor

    def _gated(self, own: Tensor, base: Tensor, score: Tensor, is_open: bool) -> Tensor:
        if self.frozen:
            return _Replaced.apply(own, base, score, is_open, self.weight_decay)  # pyright: ignore[reportReturnType]
        return _Added.apply(own, base, score, is_open, self.weight_decay)  # pyright: ignore[reportReturnType]

    def _named_weights(self) -> Iterator[tuple[str, Tensor]]:
        names = (name for layer in self.layers for name in layer.parameters)
        return zip(names, self.weights, strict=True)


class _Replaced(torch.autograd.Function):
    """(u, w, s) -> u through an open gate, w through a closed one, both without a copy.

    With g the gradient of what came out: dL/du = I g, dL/ds = <g, u - w>, the straight-through estimate (Sec. 3).
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, base: Tensor, _score: Tensor, is_open: bool, weight_decay: float) -> Tensor:
        ctx.save_for_backward(own, base)
        ctx.is_open, ctx.weight_decay = is_open, weight_decay
        return own.detach() if is_open else base.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        own, base = ctx.saved_tensors
        delta = own - base
        return _of_delta(ctx, gradient, delta), None, _dot(delta, gradient), None, None


class _Added(torch.autograd.Function):
    """(δ, w, s) -> w + I δ; dL/dδ = I g, dL/dw = g, dL/ds = <g, δ>."""

    @staticmethod
    def forward(ctx: Any, delta: Tensor, base: Tensor, _score: Tensor, is_open: bool, weight_decay: float) -> Tensor:
        ctx.save_for_backward(delta)
        ctx.is_open, ctx.weight_decay = is_open, weight_decay
        return base + delta if is_open else base.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (delta,) = ctx.saved_tensors
        return _of_delta(ctx, gradient, delta), gradient, _dot(delta, gradient), None, None


def _of_delta(ctx: Any, gradient: Tensor, delta: Tensor) -> Tensor:
    """The gradient of δ: weight decay pulls it towards zero, and so w + δ towards w."""
    # A closed layer's δ gets zeros, not nothing: its momentum goes on as it does in the plain form.
    found = gradient if ctx.is_open else torch.zeros_like(delta)
    return found.add(delta, alpha=ctx.weight_decay) if ctx.weight_decay else found


def _dot(delta: Tensor, gradient: Tensor) -> Tensor:
    if gradient.stride() == delta.stride() and not delta.is_contiguous():
        return torch.dot(_in_memory(delta), _in_memory(gradient))
    return torch.dot(delta.reshape(-1), gradient.reshape(-1))


def _in_memory(tensor: Tensor) -> Tensor:
    """A tensor without gaps as a vector, in the order in which it lies in memory: no copy where it is channels-last."""
    return tensor.permute(sorted(range(tensor.dim()), key=tensor.stride, reverse=True)).reshape(-1)
