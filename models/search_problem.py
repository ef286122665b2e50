"""What a tree search is asked and what it answers; whole-number costs, in which ties are ties.

Letters: T tasks, D locations, L least common multiple of 1..T. Vandenhende et al. 2020, section 3.2.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np

from models.branch_tree import BranchTree

MOST_TASKS = 20  # whose whole-number costs fit 63 bits
FINEST = 12  # decimals kept: what lies below is rounding, not dissimilarity

Branches = tuple[int, ...]


class Point(NamedTuple):
    """One tree of a front."""

    tree: BranchTree
    cost: float
    budget: float


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """A front by rising budget and falling cost, and how far it is proved.

    No allowed tree smaller than `points[i + 1]` costs less than `lower_bounds[i]`, and no allowed tree at all less than
    the last bound; where `optimal`, bounds and costs are equal.
    """

    points: list[Point]
    method: str
    optimal: bool
    lower_bounds: list[float]


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A budget in a unit of its own (FLOPs beside parameters): at most `most`."""

    block_costs: Sequence[float]
    head_costs: Sequence[float]
    most: float

    def holds(self, branches: Branches) -> bool:
        return tree_size(branches, self.block_costs, self.head_costs) <= self.most


@dataclass(frozen=True, kw_only=True)
class SearchProblem:
    """Dissimilarities [D][T][T], the unit in which a front's budgets count, and the limits that every tree must keep.

    A tree's size depends on its numbers of branches (b_1, ..., b_D) alone, and these never fall with depth.
    """

    distances: tuple[tuple[tuple[float, ...], ...], ...]
    block_costs: tuple[float, ...]
    head_costs: tuple[float, ...]
    limits: tuple[Limit, ...] = ()
    share_first: bool = False

    @property
    def num_tasks(self) -> int:
        return len(self.distances[0])

    @property
    def num_locations(self) -> int:
        return len(self.distances)

    def size(self, branches: Branches) -> float:
        return tree_size(branches, self.block_costs, self.head_costs)

    def allows(self, branches: Branches) -> bool:
        if self.share_first and branches[0] > 1:
            return False
        return all(limit.holds(branches) for limit in self.limits)

    def vectors(self) -> Iterator[Branches]:
        """Every allowed (b_1, ..., b_D), in no order."""
        counts = range(1, self.num_tasks + 1)
        return filter(self.allows, combinations_with_replacement(counts, self.num_locations))

    def point(self, tree: BranchTree) -> Point:
        return Point(tree, tree.cost_of(self.distances), self.size(tree.branches))


def tree_size(branches: Branches, block_costs: Sequence[float], head_costs: Sequence[float]) -> float:
    """Map numbers of branches to the whole network's size; integers stay so."""
    return sum(b * cost for b, cost in zip(branches, block_costs, strict=True)) + sum(head_costs)


def whole_distances(problem: SearchProblem) -> tuple[np.ndarray, np.ndarray]:
    """Map dissimilarities to whole numbers [D, T, T] int64, and the weights L / j [T + 1] of one of j branches.

    sum_d weights[b_d] * (sum of the branches' whole diameters) is a tree's cost in whole numbers that no order of
    adding changes, so that equal costs are equal; decimals and not bits are kept, so that 0.1 + 0.1 equals 0.2 too. It
    fits 63 bits up to `MOST_TASKS`.
    """
    multiple = math.lcm(*range(1, problem.num_tasks + 1))
    bits = 61 - multiple.bit_length() - problem.num_locations.bit_length()
    if bits < 20:
        raise ValueError(f"{problem.num_tasks} tasks are too many for whole-number costs; use method 'beam'")
    decimals = min(FINEST, int(bits * math.log10(2)))
    weights = np.array([0, *(multiple // j for j in range(1, problem.num_tasks + 1))], dtype=np.int64)
    upper = np.triu(np.round(np.asarray(problem.distances) * 10.0**decimals).astype(np.int64), 1)
    return upper + upper.transpose(0, 2, 1), weights


def whole_cost(tree: BranchTree, whole: np.ndarray, weights: np.ndarray) -> int:
    """Map a tree to its cost in the whole numbers of `whole_distances`."""
    total = 0
    for location in range(tree.num_locations):
        members = tree.members(location)
        diameters = (int(whole[location][np.ix_(tasks, tasks)].max()) for tasks in members if len(tasks) > 1)
        total += int(weights[len(members)]) * sum(diameters)
    return total


def falling(candidates: Iterable[tuple[float, float, BranchTree]]) -> list[BranchTree]:
    """Map (size, comparable cost, tree) to the trees whose cost falls below that of all of smaller or equal size.

    Of equals the one with the fewest branches stands, then the first in canonical order.
    """
    front: list[BranchTree] = []
    least = math.inf
    for _, cost, tree in sorted(candidates, key=lambda item: (item[0], item[1], sum(item[2].branches), item[2])):
        if cost < least:
            front.append(tree)
            least = cost
    return front
