"""A network -> what its tasks share, as lines of text."""

from collections.abc import Callable
from itertools import groupby
from typing import Any

from models.branch_tree import BranchTree
from models.experts import key
from models.sharing import SharedModel
from models.sharing.moe import MoeModel
from models.sharing.taps import TapsModel
from models.tasks.base import listed

FAVOURITES = 4  # experts that are named of a layer


def shared_text(network: SharedModel) -> str:
    """Map a network to what its tasks share: the tree, each task's own layers, or each data set's experts."""
    return TEXTS[network.spec.strategy](network)


def _tree(network: SharedModel) -> str:
    return BranchTree(network.spec.groups).text(network.spec.task_names)


def _own_layers(network: TapsModel) -> str:
    lines = [f"one base of {len(network.layers)} gated layers; normalisation layers and heads are each task's own"]
    for task in network.spec.task_names:
        own = network.active_layers(task)
        lines.append(f"{task}: {len(own)} layers of its own: {listed(own)}")
    return "\n".join(lines)


def _experts(network: MoeModel) -> str:
    """Per data set the experts that it may choose, per layer those that it favours: B(i|j) of the bundle."""
    lines = []
    for name, route in network.routes.items():
        tasks = ", ".join(task.name for task in network.spec.tasks if task.dataset == name)
        counts = [f"{count}" + (f" in {times} layers" if times > 1 else "") for count, times in _runs(route.experts)]
        lines.append(f"{name} ({tasks}): top {route.top_k} of {', '.join(counts)} experts")
    for name, layer in network.layers.items():
        favourites = []
        for dataset, numbers in layer.numbers.items():
            share = dict(zip(layer.names, layer.estimates.get_buffer(key(dataset)).tolist(), strict=True))
            best = sorted((str(number) for number in numbers), key=lambda number: -share[number])[:FAVOURITES]
            favourites.append(f"{dataset} {' '.join(best)}")
        lines.append(f"{name}  {len(layer.names)} experts; most likely: {' | '.join(favourites)}")
    return "\n".join(lines)


def _runs(experts: tuple[tuple[int, ...], ...]) -> list[tuple[int, int]]:
    return [(count, len(list(group))) for count, group in groupby(len(row) for row in experts)]


def _method(network: SharedModel) -> str:
    settings = dict(network.spec.settings)
    method = settings.pop("method", "")
    more = ", ".join(f"{name} {value}" for name, value in settings.items())
    return f"one task on a frozen base, adapted by {method}" + (f" ({more})" if more else "")


TEXTS: dict[str, Callable[[Any], str]] = {
    "branched": _tree,
    "taps": _own_layers,
    "moe": _experts,
    "adapted": _method,
}
