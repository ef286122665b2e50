"""Every tree in turn: their list, their number, and the Pareto front of those that can be walked one by one.

Letters: T tasks, D locations. Vandenhende et al. 2020, section 3.2 (Algorithm 1, line 8).
"""

import math
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

from models.branch_tree import BranchTree, Partition, partition_members
from models.search_problem import Branches, SearchProblem, SearchResult, falling, whole_distances

EXHAUSTIVE_LIMIT = 2_000_000  # trees: a few seconds on one core


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


def exhaustive_front(problem: SearchProblem) -> SearchResult:
    """Map a problem to its whole front by walking all trees."""
    trees = count_trees(problem.num_tasks, problem.num_locations - problem.share_first)
    if trees > EXHAUSTIVE_LIMIT:
        raise ValueError(
            f"{problem.num_tasks} tasks and {problem.num_locations} locations have {trees:,} trees, more than the "
            f"{EXHAUSTIVE_LIMIT:,} that are searched one by one; use method 'exact', or take fewer tasks, fewer "
            "locations, or share_first=True"
        )
    least = _least_by_branches(problem)
    front = falling((problem.size(branches), cost, BranchTree(chain)) for branches, (cost, chain) in least.items())
    points = [problem.point(tree) for tree in front]
    return SearchResult(points=points, method="exhaustive", optimal=True, lower_bounds=[point.cost for point in points])


def _least_by_branches(problem: SearchProblem) -> dict[Branches, tuple[int, tuple[Partition, ...]]]:
    """Every allowed branch vector, which alone fixes a tree's size -> its least whole cost, and the first such tree."""
    whole, weights = whole_distances(problem)
    finer = cache(lambda coarse: tuple(_refinements(coarse)))
    costs = [cache(_partition_cost(whole_TT, weights)) for whole_TT in whole]
    best: dict[Branches, tuple[int, tuple[Partition, ...]]] = {}

    def grow(chain: tuple[Partition, ...], branches: Branches, cost: int) -> None:
        location = len(chain)
        if location == problem.num_locations:
            if branches not in best or cost < best[branches][0]:
                best[branches] = (cost, chain)
            return
        coarse = chain[-1] if chain else (0,) * problem.num_tasks
        for fine in (coarse,) if problem.share_first and not chain else finer(coarse):
            grow((*chain, fine), (*branches, max(fine) + 1), cost + costs[location](fine))

    grow((), (), 0)
    return {branches: found for branches, found in best.items() if problem.allows(branches)}


def _partition_cost(whole_TT: np.ndarray, weights: np.ndarray) -> Callable[[Partition], int]:
    """Map one location's whole dissimilarities to the cost of a partition, each branch's diameter measured once."""
    diameter = cache(lambda tasks: int(whole_TT[np.ix_(tasks, tasks)].max()))

    def cost(partition: Partition) -> int:
        members = partition_members(partition)
        return int(weights[len(members)]) * sum(map(diameter, members))

    return cost


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
