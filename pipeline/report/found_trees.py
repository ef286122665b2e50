"""What the search for trees found and proved, and every tree that was trained -> values for tables and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.report.network import Row

Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class ChosenTree:
    """A tree that was asked for, by a budget or by name; no tree within the budget costs less than `lower_bound`."""

    name: str
    request: str
    groups: Groups
    cost: float
    lower_bound: float
    optimal: bool
    method: str
    budget: int
    params: int
    flops: int

    @property
    def label(self) -> str:
        """Its budget as people write it (1.7×, 0.8 M), or its name where it was not asked for by a budget."""
        if not self.request:
            return self.name
        return ", ".join(_budget_text(part) for part in self.request.split(", "))


@dataclass(frozen=True, kw_only=True)
class Search:
    """How the trees were searched, in which unit their budgets are, and which were chosen, by their names.

    `block_costs` maps "params" and "flops" to the cost of one branch at each location; earlier searches did not tell.
    """

    unit: str
    method: str
    optimal: bool
    trees_in_all: int
    chosen: Mapping[str, ChosenTree]
    block_costs: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def asked(self) -> list[ChosenTree]:
        """The trees of the budgets; the fully shared and the fully split one were not searched for."""
        return [tree for tree in self.chosen.values() if tree.request]


@dataclass(frozen=True, kw_only=True)
class TrainedTree:
    """A tree that was trained, with its Δ_MTL of every seed on test and on validation."""

    name: str
    groups: Groups
    cost: float
    params: int
    flops: int
    delta_mtl: tuple[float, ...]
    delta_mtl_val: tuple[float, ...]
    jobs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TrainedTrees:
    """Every distinct tree that was trained; `spearman` is the rank correlation of cost and mean Δ_MTL on test.

    `same_size` is that among trees of equal size alone.
    """

    exhaustive: bool
    trees_in_all: int
    spearman: float | None
    p_value: float | None
    spearman_val: float | None
    same_size: float | None
    same_size_p: float | None
    trees: Sequence[TrainedTree]


def gap(cost: float, lower_bound: float) -> float:
    """Map a tree's cost and its proved lower bound to the share of the cost that a better tree might save, percent."""
    return 100 * (cost - lower_bound) / cost if cost else 0.0


def read_search(raw: Row) -> Search:
    """Map `chosen.json` to the search and its trees."""
    trees = [ChosenTree(**_frozen(tree)) for tree in raw["trees"]]
    head = {key: raw[key] for key in ("unit", "method", "optimal", "trees_in_all")}
    return Search(**head, chosen={tree.name: tree for tree in trees}, block_costs=raw.get("block_costs", {}))


def read_trained(raw: Row) -> TrainedTrees:
    """Map `all_trees.json` to the trained trees."""
    head = {key: value for key, value in raw.items() if key != "trees"}
    return TrainedTrees(**head, trees=[TrainedTree(**_frozen(tree)) for tree in raw["trees"]])


def _frozen(value: Any) -> Any:
    """Lists as tuples, also inside of lists and of a mapping's values."""
    if isinstance(value, Mapping):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _budget_text(part: str) -> str:
    """Map one budget as written ("1.7x", "2000000", "params 1.7x") to how people read it."""
    unit, _, size = part.rpartition(" ")
    text = f"{size[:-1]}×" if size.endswith("x") else f"{float(size) / 1e6:,.4g} M"
    return f"{unit} {text}".lstrip()
