"""What a data set adds to a network with experts that stays as it is, and such networks joined (MTHL, Sec. 3.4).

A data set that was added has `own` rows in its route, empty ones where it brought no expert; the base's data sets have
no rows. E experts of a layer.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.bundle_files import offline
from models.delta_files import normalised
from models.deltas import fill
from models.experts import key
from models.sharing.moe import MoeModel
from models.spec import ModelSpec, Route


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What one data set adds to a base: its tasks and its one route, as a spec, and its own tensors.

    They are "layers.<layer>.own.<place in the route's own>.<name>", "layers.<layer>.router.<name>",
    "layers.<layer>.estimates" in the order of the route's experts, and "heads.<place among its tasks>.<name>".
    """

    spec: ModelSpec
    tensors: Mapping[str, Tensor]

    @property
    def route(self) -> Route:
        (route,) = self.spec.routes
        return route


def added_datasets(spec: ModelSpec) -> tuple[str, ...]:
    """Map a network to its data sets that were added to others: to none where it has no others."""
    added = tuple(route.dataset for route in spec.routes if route.own)
    return added if {task.dataset for task in spec.tasks} - set(added) else ()


def join(base: MoeModel, grown: Sequence[MoeModel]) -> MoeModel:
    """Map a base and networks that each learned a data set beside it to one that predicts exactly as they all do.

    Own experts get numbers that nobody has yet. ValueError names what is neither a data set's own nor the base's: what
    was changed as a whole can't join.
    """
    for network in grown:
        _check_grown(base, network)
    return grow(base, [growth_of(network, network.datasets[0]) for network in grown])


def grow(base: MoeModel, growths: Iterable[Growth]) -> MoeModel:
    """Map a base and what data sets add to it to one network. ValueError names the data set that does not fit."""
    spec, first, added = offline(base.spec), first_free(base), list[Growth]()
    for growth in growths:
        _check_route(base, spec, growth)
        added.append(renumbered(growth, first))
        first = [number + len(own) for number, own in zip(first, growth.route.own, strict=True)]
        spec = replace(spec, tasks=(*spec.tasks, *growth.spec.tasks), routes=(*spec.routes, added[-1].route))
    joined = MoeModel(spec)
    _take(joined, base)
    for growth in added:
        _take_growth(joined, growth)
    return joined.to(base.mean.device).train(base.training)


def come_apart(network: MoeModel) -> tuple[MoeModel, list[Growth]]:
    """Map a network to its base and what data sets added to that, numbered from the base's experts on; undoes `grow`.

    ValueError where one of them uses what another brought.
    """
    added = added_datasets(network.spec)
    if not added:
        return network, []
    base = without(network, added)
    growths = [growth_of(network, name) for name in added]
    for growth in growths:
        _check_route(base, base.spec, growth)
    return base, [renumbered(growth, first_free(base)) for growth in growths]


def without(network: MoeModel, datasets: Sequence[str]) -> MoeModel:
    """Map a network to that of its other data sets, with the experts that they use."""
    spec = offline(network.spec)
    tasks = tuple(task for task in spec.tasks if task.dataset not in datasets)
    routes = tuple(route for route in spec.routes if route.dataset not in datasets)
    rest = MoeModel(replace(spec, tasks=tasks, routes=routes))
    _take(rest, network)
    return rest.to(network.mean.device).train(network.training)


@torch.no_grad()
def growth_of(network: MoeModel, dataset: str) -> Growth:
    """Map a network to what one of its data sets has of its own."""
    route = network.routes[dataset]
    route = replace(route, own=route.own or ((),) * len(network.layers))
    tasks = tuple(task for task in network.spec.tasks if task.dataset == dataset)
    tensors = _own_tensors(network, dataset)
    for place, (layer, chosen) in enumerate(zip(network.layers.values(), route.experts, strict=True)):
        row_E = layer.estimates.get_buffer(key(dataset))
        tensors[_estimates(place)] = _reordered(row_E, _numbers(layer.names), chosen)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return Growth(spec=replace(offline(network.spec), tasks=tasks, routes=(route,)), tensors=plain)


def renumbered(growth: Growth, first: Sequence[int]) -> Growth:
    """Number a data set's own experts from each layer's first free number on."""
    route = growth.route
    experts, own = [], []
    for chosen, mine, start in zip(route.experts, route.own, first, strict=True):
        new = {number: start + place for place, number in enumerate(mine)}
        experts.append(tuple(new.get(number, number) for number in chosen))
        own.append(tuple(new.values()))
    route = replace(route, experts=tuple(experts), own=tuple(own))
    return replace(growth, spec=replace(growth.spec, routes=(route,)))


def first_free(network: MoeModel) -> list[int]:
    """Map a network to the first number after those of each layer's experts."""
    return [1 + max(_numbers(layer.names)) for layer in network.layers.values()]


def _check_grown(base: MoeModel, network: MoeModel) -> None:
    """Refuse what is not the base but for one data set's own."""
    name = ", ".join(network.spec.task_names)
    if len(network.datasets) != 1:
        raise ValueError(f"{name}: what joins a base has learned one data set, not {', '.join(network.datasets)}")
    if network.settings.adapter:
        raise ValueError(f"{name}: a network with adapters can't join a base, whose mixtures have none")
    here, there = normalised(base.spec), normalised(network.spec)
    if unlike := [f"{what} {there[what]}, not {here[what]}" for what in here if here[what] != there[what]]:
        raise ValueError(f"{name}: made for a network with {'; '.join(unlike)}")
    own, known = tuple(_own_places(network, network.datasets[0]).values()), base.state_dict()
    for tensor, value in network.state_dict().items():
        if tensor.startswith(own) or ".estimates." in tensor:
            continue
        if tensor not in known or not _same_bytes(value, known[tensor]):
            raise ValueError(
                f"{name}: {tensor} is not the base's, nor {network.datasets[0]}'s own; only a network that learned a"
                " router and experts of its own (learns: own) can join"
            )


def _check_route(base: MoeModel, spec: ModelSpec, growth: Growth) -> None:
    """Refuse a data set that is there already, or that uses experts which the base does not share."""
    route, tasks = growth.route, [task.name for task in growth.spec.tasks if task.name in spec.task_names]
    if route.dataset in (*base.settings.remembered, *(task.dataset for task in spec.tasks)) or tasks:
        taken = f"task {tasks[0]!r}" if tasks else f"data set {route.dataset!r}"
        raise ValueError(f"there is a {taken} already")
    if not len(base.layers) == len(route.experts) == len(route.own) > 0:
        raise ValueError(
            f"data set {route.dataset!r}: its route is for {len(route.experts)} layers with experts, the base has"
            f" {len(base.layers)}; a network is grown by experts, in each layer that has them"
        )
    private = [base.routes[name].own for name in added_datasets(base.spec)]
    for place, (name, layer) in enumerate(base.layers.items()):
        shared = set(_numbers(layer.names)).difference(*(own[place] for own in private))
        if strange := sorted(set(route.experts[place]) - set(route.own[place]) - shared):
            raise ValueError(
                f"data set {route.dataset!r}: experts {strange} of {name} are neither its own nor shared by the base"
            )


@torch.no_grad()
def _take(network: MoeModel, other: MoeModel) -> None:
    """Fill a network with what another of the same base has by the same names: experts, routers, heads, estimates."""
    places, found = network.state_dict(), other.state_dict()
    tasks = [
        (place, other.spec.task_names.index(name)) for place, name in enumerate(network.tasks) if name in other.tasks
    ]
    for name in [name for name in found if not name.startswith("heads.") and ".estimates." not in name]:
        if name in places:
            places[name].copy_(found[name])
    for place, theirs in tasks:
        network.heads[place].load_state_dict(other.heads[theirs].state_dict())
    for layer, theirs in zip(network.layers.values(), other.layers.values(), strict=True):
        for name in set(layer.estimates.names) & set(theirs.estimates.names):
            row_E = theirs.estimates.get_buffer(key(name))
            moved_E = _reordered(row_E, _numbers(theirs.names), _numbers(layer.names))
            layer.estimates.get_buffer(key(name)).copy_(moved_E)


@torch.no_grad()
def _take_growth(joined: MoeModel, growth: Growth) -> None:
    """Fill a network with what a data set that it has adds to it."""
    route = growth.route
    rows = {_estimates(place): torch.empty(len(chosen)) for place, chosen in enumerate(route.experts)}
    try:
        fill(_own_tensors(joined, route.dataset) | rows, growth.tensors)
    except ValueError as error:
        raise ValueError(f"data set {route.dataset!r}: {error}") from None
    for place, layer in enumerate(joined.layers.values()):
        row_E = _reordered(rows[_estimates(place)], route.experts[place], _numbers(layer.names))
        layer.estimates.get_buffer(key(route.dataset)).copy_(row_E)


def _own_tensors(network: MoeModel, dataset: str) -> dict[str, Tensor]:
    """Map a data set to its own tensors in a network, by their names in a growth; all but its estimates."""
    state = network.state_dict()
    return {
        inside + name.removeprefix(place): tensor
        for inside, place in _own_places(network, dataset).items()
        for name, tensor in state.items()
        if name.startswith(place)
    }


def _own_places(network: MoeModel, dataset: str) -> dict[str, str]:
    """Map a data set to what its own tensors' names begin with: in a growth -> in a network."""
    paths, own = {layer: path for path, layer in network.named_modules()}, network.routes[dataset].own
    found = {}
    for place, layer in enumerate(network.layers.values()):
        found[f"layers.{place}.router."] = f"{paths[layer]}.routers.{key(dataset)}."
        for index, number in enumerate(own[place] if own else ()):
            found[f"layers.{place}.own.{index}."] = f"{paths[layer]}.experts.{number}."
    heads = [place for place, task in enumerate(network.spec.tasks) if task.dataset == dataset]
    return found | {f"heads.{index}.": f"heads.{place}." for index, place in enumerate(heads)}


def _estimates(place: int) -> str:
    return f"layers.{place}.estimates"


def _numbers(names: Iterable[str]) -> list[int]:
    return [int(name) for name in names]


def _reordered(row_E: Tensor, have: Sequence[int], want: Sequence[int]) -> Tensor:
    """Map a row with an entry for each of some experts to one for others; 0 for those that it lacks."""
    padded = torch.cat([row_E, row_E.new_zeros(1)])
    return padded[[have.index(number) if number in have else -1 for number in want]]


def _same_bytes(one: Tensor, other: Tensor) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    first, second = (tensor.cpu().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other))
    return torch.equal(first, second)
