"""A job that trained a network with experts -> the network, and how its routers use the experts on held-out images.

L layers, M data sets, E experts by number, T tokens, K experts per token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.experts import MoEMlp
from models.mutual_information import mutual_information
from models.sharing.moe import MoeModel
from pipeline.jobs import TrainJob
from pipeline.loading import Split, in_order
from pipeline.machine import Machine
from pipeline.trained import own_device
from pipeline.training_state import splits_of


@dataclass(frozen=True, kw_only=True)
class Usage:
    """By layer and data set, for each expert's number: its share of all choices, and its mean probability P(i|j)."""

    picks: list[list[list[float]]]
    probs: list[list[list[float]]]

    def information(self) -> list[float]:
        """I(expert; data set) of each layer, in nats (MTHL, Eq. 3)."""
        return [float(mutual_information(torch.tensor(layer))) for layer in self.probs]


def layers_of(network: MoeModel) -> list[dict[str, Any]]:
    """Map a network to its layers of experts, from input to output."""
    location = {module: d for d, block in enumerate(network.blocks, 1) for module in block.modules()}
    return [
        {
            "name": name,
            "location": location[layer],
            "experts": len(layer.experts),
            "top_k": max(layer.router(dataset).top_k for dataset in layer.numbers),
            "channels": layer.expert(int(layer.names[0])).fc1.weight.shape[1],
            "hidden": layer.expert(int(layer.names[0])).fc1.weight.shape[0],
        }
        for name, layer in network.layers.items()
    ]


def usage_of(job: TrainJob, network: MoeModel, machine: Machine, prepared: Path) -> Usage:
    """Map a finished job and its network to the use of the experts on validation images."""
    splits = splits_of(job, prepared, "val")
    return expert_usage(network, splits, job.batches, own_device(machine))


@torch.no_grad()
def expert_usage(network: MoeModel, splits: Sequence[Split], batches: Sequence[int], device: torch.device) -> Usage:
    """Map a network and one split of each of its data sets to the use of its experts.

    A row has an entry for each number that its base's experts have, or more; experts that a data set lacks have 0.
    """
    network.to(device).eval()
    picks, probs = [], []
    for split, batch in zip(splits, batches, strict=True):
        names = [task.name for task in network.spec.tasks if task.dataset == split.dataset]
        counters = {name: _Counter(layer, split.dataset) for name, layer in network.layers.items()}
        for part in in_order(split, batch):
            network(part.images.to(device), names)
        picks.append([counter.shares(counter.picks_E) for counter in counters.values()])
        probs.append([counter.shares(counter.probs_E) for counter in counters.values()])
        for counter in counters.values():
            counter.handle.remove()
    return Usage(picks=_by_layer(picks, network.settings.experts), probs=_by_layer(probs, network.settings.experts))


class _Counter:
    """Sums over tokens of what one layer's router for a data set gives."""

    def __init__(self, layer: MoEMlp, dataset: str) -> None:
        self.numbers = layer.numbers[dataset]
        self.picks_E = torch.zeros(len(self.numbers), dtype=torch.float64)
        self.probs_E = torch.zeros(len(self.numbers), dtype=torch.float64)
        self.handle = layer.router(dataset).register_forward_hook(self._add)

    def _add(self, _router: object, _inputs: object, found: tuple[Tensor, Tensor, Tensor]) -> None:
        _, choice_TK, probs_TE = found
        self.picks_E += torch.bincount(choice_TK.flatten(), minlength=len(self.numbers)).cpu()
        self.probs_E += probs_TE.double().sum(0).cpu()

    def shares(self, sums_E: Tensor) -> list[float]:
        by_number = dict(zip(self.numbers, (sums_E / sums_E.sum()).tolist(), strict=True))
        return [by_number.get(number, 0.0) for number in range(max(self.numbers) + 1)]


def _by_layer(by_dataset: Sequence[Sequence[list[float]]], least: int) -> list[list[list[float]]]:
    """[M][L][E] -> [L][M][E], all rows of a layer as long as its longest, and at least as long as asked."""
    layers = [list(rows) for rows in zip(*by_dataset, strict=True)]
    longest = [max(least, *(len(row) for row in rows)) for rows in layers]
    return [[row + [0.0] * (most - len(row)) for row in rows] for rows, most in zip(layers, longest, strict=True)]
