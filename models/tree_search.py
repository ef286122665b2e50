"""Search over branch trees: every tree, their number, and the Pareto front of cost against budget.

Letters: T tasks, D locations. Vandenhende et al. 2020, section 3.2 (Algorithm 1, line 8).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from models.branch_tree import (
    Affinity,
    BranchTree,
    Partition,
    diameter,
    location_cost,
    partition_members,
    task_distances,
)

EXHAUSTIVE_LIMIT = 2_000_000  # trees: a few seconds on one core


class Point(NamedTuple):
    """One tree of a front."""

    tree: BranchTree
    cost: float
    budget: float


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """A front by rising budget and falling cost, and how far it is proved.

    No tree within the budget of `points[i]` costs less than `lower_bounds[i]`; where `optimal`, the two are equal.
    """

    points: list[Point]
    method: str
    optimal: bool
    lower_bounds: list[float]


def enumerate_trees(num_tasks: int, num_locations: int) -> Iterator[BranchTree]:
    """Map the numbers of tasks and locations to every distinct tree once, in rising order of `groups`."""
    yield from map(BranchTree, _chains((0,) * num_tasks, num_locations))


def count_trees(num_tasks: int, num_locations: int) -> int:
    """Map the numbers of tasks and locations to the number of distinct trees, without listing them.

    The first task's branch at location 1 has j tasks: C(T-1, j-1) choices, each a tree of j tasks on the locations
    that remain, beside a tree of the T - j other tasks.
    """

    @cache
    def count(tasks: int, locations: int) -> int:
        if tasks == 0 or locations == 0:
            return 1
        return sum(
            math.comb(tasks - 1, j - 1) * count(j, locations - 1) * count(tasks - j, locations)
            for j in range(1, tasks + 1)
        )

    return count(num_tasks, num_locations)


def pareto_front(
    affinity: Affinity,
    block_costs: Sequence[float],
    head_costs: Sequence[float],
    *,
    budget: float | None = None,
    method: str = "auto",
    share_first: bool = False,
) -> SearchResult:
    """Map affinities [D, T, T] and costs per block and head to the trees that no other tree beats in cost and budget.

    `budget` keeps to trees of at most that size, `share_first` to trees with one branch at location 1. Among trees of
    equal cost and budget the one with the fewest branches stands, then the first in order.
    """
    if method != "auto" and method not in METHODS:
        raise ValueError(f"method {method!r}: use one of {', '.join(['auto', *METHODS])}")
    distances = task_distances(affinity)
    smallest = BranchTree.shared(len(distances[0]), len(distances)).budget(block_costs, head_costs)
    if budget is not None and budget < smallest:
        raise ValueError(f"budget {budget:,} is below that of the fully shared tree, {smallest:,}; raise it to that")
    method = "exhaustive" if method == "auto" else method
    trees = METHODS[method](distances, share_first)
    candidates = [Point(tree, tree.cost(affinity), tree.budget(block_costs, head_costs)) for tree in trees]
    points = _front([point for point in candidates if budget is None or point.budget <= budget])
    return SearchResult(points=points, method=method, optimal=True, lower_bounds=[point.cost for point in points])


def best_within(result: SearchResult, budget: float) -> Point:
    """Map a search result and a budget to the least-cost point within it."""
    within = [point for point in result.points if point.budget <= budget]
    if not within:
        raise ValueError(f"budget {budget:,} is below that of the smallest tree, {result.points[0].budget:,}")
    return within[-1]


def _exhaustive(distances: list[list[list[float]]], share_first: bool) -> list[BranchTree]:
    """Walk every tree and keep the least-cost one of every branch vector: the vector alone fixes the budget."""
    num_tasks, num_locations = len(distances[0]), len(distances)
    trees = count_trees(num_tasks, num_locations - share_first)
    if trees > EXHAUSTIVE_LIMIT:
        raise ValueError(
            f"{num_tasks} tasks and {num_locations} locations have {trees:,} trees, more than the {EXHAUSTIVE_LIMIT:,} "
            "that are searched one by one; take fewer tasks, fewer locations, or share_first=True"
        )
    refinements = cache(lambda coarse: tuple(_refinements(coarse)))
    costs = [cache(_partition_cost(rows)) for rows in distances]
    best: dict[tuple[int, ...], tuple[float, tuple[Partition, ...]]] = {}

    def grow(chain: tuple[Partition, ...], branches: tuple[int, ...], cost: float) -> None:
        location = len(chain)
        if location == num_locations:
            if branches not in best or cost < best[branches][0]:
                best[branches] = (cost, chain)
            return
        coarse = chain[-1] if chain else (0,) * num_tasks
        for fine in (coarse,) if share_first and not chain else refinements(coarse):
            grow((*chain, fine), (*branches, max(fine) + 1), cost + costs[location](fine))

    grow((), (), 0.0)
    return [BranchTree(chain) for _, chain in best.values()]


METHODS: dict[str, Callable[[list[list[list[float]]], bool], list[BranchTree]]] = {"exhaustive": _exhaustive}


def _partition_cost(distances: Sequence[Sequence[float]]) -> Callable[[Partition], float]:
    """Map one location's dissimilarities to the cost of a partition there, each branch's diameter measured once."""
    branch_diameter = cache(lambda tasks: diameter(tasks, distances))
    return lambda partition: location_cost([branch_diameter(tasks) for tasks in partition_members(partition)])


def _front(candidates: list[Point]) -> list[Point]:
    """Keep the points whose cost falls below that of every point of smaller or equal budget."""
    candidates.sort(key=lambda point: (point.budget, point.cost, sum(point.tree.branches), point.tree))
    front: list[Point] = []
    for point in candidates:
        if not front or point.cost < front[-1].cost:
            front.append(point)
    return front


def _chains(coarse: Partition, length: int) -> Iterator[tuple[Partition, ...]]:
    """Every chain of `length` partitions, the first of which refines `coarse`."""
    if length == 0:
        yield ()
        return
    for fine in _refinements(coarse):
        for rest in _chains(fine, length - 1):
            yield (fine, *rest)


def _refinements(coarse: Partition, prefix: Partition = (), parents: Partition = ()) -> Iterator[Partition]:
    """Every partition that refines `coarse` and starts with `prefix`, whose branch b lies in branch `parents[b]`."""
    if len(prefix) == len(coarse):
        yield prefix
        return
    parent = coarse[len(prefix)]
    for branch, other in enumerate(parents):
        if other == parent:
            yield from _refinements(coarse, (*prefix, branch), parents)
    yield from _refinements(coarse, (*prefix, len(parents)), (*parents, parent))
