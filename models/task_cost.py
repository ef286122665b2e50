"""What one task adds to a base: parameters by the paper's rule, and true bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from models.accounting import additional_params, count_params
from models.backbone import build_blocks
from models.bundle_files import offline, stored_bytes
from models.deltas import fingerprint
from models.gating import gated_layers, is_norm
from models.sharing import SharedModel
from models.sharing.adapted import AdaptedModel
from models.sharing.taps import TapsModel
from models.taps_bundle import packed


@dataclass(frozen=True, kw_only=True)
class TaskCost:
    """Numbers of parameters (TAPS, Wallingford et al. 2022, App. C) and the size of the task's file, in bytes.

    `active`: the task's own weights in layers, with their biases; `norm`: its own weights and biases of normalisation
    layers; `head`: its head. `backbone`: all convolutions and linear layers of the base, gated or not, and
    normalisation layers that stay the base's; `base`: all parameters of the base. `scores` of the gates and whether
    each is open, from input to output; None where a method has no gates.
    """

    active: int
    norm: int
    head: int
    backbone: int
    base: int
    bytes: int
    scores: Sequence[float] | None = None
    is_open: Sequence[bool] | None = None

    @property
    def share(self) -> float:
        """The paper's "% additional parameters" as a fraction; the head is no part of what is added."""
        return additional_params(active=self.active, norm=self.norm, backbone=self.backbone, head=self.head)

    @property
    def layers_share(self) -> float | None:
        """The fraction of gated layers that are the task's own."""
        return None if self.is_open is None else sum(self.is_open) / len(self.is_open)

    @property
    def own(self) -> int:
        """All parameters that the task brings, its head too."""
        return self.active + self.norm + self.head

    def row(self) -> dict[str, Any]:
        """The JSON form, with what follows from it."""
        return {
            "base_params": self.base,
            "active_weights": self.active,
            "own_params": self.own,
            "params_share": self.share,
            "layers_share": self.layers_share,
            "scores": self.scores,
            "active": self.is_open,
            "bytes": self.bytes,
        }


def task_cost(network: SharedModel, task: str) -> TaskCost:
    """Map a task of a network that adapts a base to what it adds. ValueError for a strategy without a base."""
    if isinstance(network, TapsModel):
        return _gated_cost(network, task)
    if isinstance(network, AdaptedModel):
        return _adapted_cost(network)
    raise ValueError(
        f"strategy {network.spec.strategy!r} has no base that a task could add to; use 'taps' or 'adapted'"
    )


def _gated_cost(network: TapsModel, task: str) -> TaskCost:
    own, index = network.of(task), network.spec.task_names.index(task)
    opened = own.gates()
    names = [
        name for layer, is_open in zip(network.layers, opened, strict=True) if is_open for name in layer.parameters
    ]
    backbone, norm, base = _base_counts(network.base)
    tensors, about = packed(network, task, fingerprint({}))  # of any base: all fingerprints have one length
    return TaskCost(
        active=sum(network.base.get_parameter(name).numel() for name in names),
        norm=norm,
        head=count_params(network.heads[index]),
        backbone=backbone,
        base=base,
        bytes=stored_bytes(tensors, about),
        scores=own.scores.tolist(),
        is_open=opened,
    )


def _adapted_cost(network: AdaptedModel) -> TaskCost:
    backbone, norm, base = _base_counts(nn.ModuleList(build_blocks(offline(network.spec).backbone)))
    own_norm = norm if network.adaptation.norms else 0
    return TaskCost(
        active=network.own_params(),
        norm=own_norm,
        head=count_params(network.heads),
        backbone=backbone + norm - own_norm,
        base=base,
        bytes=-(-network.own_bits() // 8),
    )


def _base_counts(base: nn.ModuleList) -> tuple[int, int, int]:
    """Map a base to the parameters of its convolutions and linear layers, of its normalisation layers, and all."""
    layers = [name for layer in gated_layers(base, ("*",)) for name in layer.parameters]
    norm = sum(count_params(module) for module in base.modules() if is_norm(module))
    return sum(base.get_parameter(name).numel() for name in layers), norm, count_params(base)
