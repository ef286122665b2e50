"""Exact search: the whole Pareto front, far beyond what can be walked tree by tree.

Letters: T tasks, D locations. Vandenhende et al. 2020, section 3.2.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

import numpy as np

from models.branch_and_bound import SEARCH_WORK, Pins, least_tree, no_pins
from models.branch_tree import BranchTree
from models.search_problem import Branches, SearchProblem, SearchResult, whole_distances
from models.subset_tables import Whole, subset_tables, table_bytes, table_work

WORK_PER_SECOND = 20_000_000  # what a slow core does, the nominal machine of every time limit
MOST_BYTES = 2_000_000_000
NO_LIMIT = 1 << 62

Found = tuple[int, BranchTree]
# The least-cost tree of some numbers of branches that costs less than a cutoff; with pins, any such that keeps them.
Ask = Callable[[Branches, int, Pins | None], Found | None]


class OutOfEffort(Exception):
    """The front takes more work than was granted."""


def exact_front(problem: SearchProblem, *, effort: int | None = None) -> SearchResult | None:
    """Map a problem to its whole front, proved, or to None where that takes more than `effort` steps of work.

    Work is counted and not timed: the same problem and effort give the same answer on every machine.
    Numbers of branches (b_1, ..., b_D) are taken by rising size, and each is searched only for what costs less than all
    before it.
    """
    most = NO_LIMIT if effort is None else effort
    size = problem.num_locations, problem.num_tasks
    if effort is None and table_bytes(*size) > MOST_BYTES:
        raise ValueError(
            f"{problem.num_tasks} tasks and {problem.num_locations} locations need tables of "
            f"{table_bytes(*size) / 1e9:,.0f} GB, more than {MOST_BYTES / 1e9:.0f}; use method 'beam'"
        )
    if table_bytes(*size) > MOST_BYTES or table_work(*size) + _vector_work(problem) > most:
        return None
    try:
        points = [problem.point(tree) for tree in _front(problem, _asking(problem, most))]
    except OutOfEffort:
        return None
    return SearchResult(points=points, method="exact", optimal=True, lower_bounds=[point.cost for point in points])


def _vector_work(problem: SearchProblem) -> int:
    """What it takes to ask once for every (b_1, ..., b_D); many locations have more of them than memory holds."""
    locations = problem.num_locations - problem.share_first
    return SEARCH_WORK * math.comb(problem.num_tasks + locations - 1, locations)


def _asking(problem: SearchProblem, effort: int) -> Ask:
    tables = subset_tables(*whole_distances(problem))
    meter = np.array([table_work(problem.num_locations, problem.num_tasks), effort])
    unpinned = no_pins(problem.num_locations, problem.num_tasks)

    def ask(branches: Branches, cutoff: int, pins: Pins | None) -> Found | None:
        vector = np.array((1, *branches))
        cost, parts = least_tree(tables, unpinned if pins is None else pins, vector, cutoff, meter, pins is not None)
        if meter[0] > meter[1]:
            raise OutOfEffort
        return (cost, _tree(parts, problem.num_tasks)) if cost >= 0 else None

    return ask


def _tree(parts: Whole, tasks: int) -> BranchTree:
    """Branches as sets [D + 1, T], under a row for all tasks -> the tree."""
    return BranchTree((parts[1:, :, None] >> np.arange(tasks) & 1).argmax(axis=1).tolist())


def _front(problem: SearchProblem, ask: Ask) -> Iterator[BranchTree]:
    least = NO_LIMIT
    by_size = sorted((problem.size(branches), sum(branches), branches) for branches in problem.vectors())
    for _, equals in groupby(by_size, key=lambda item: item[0]):
        found = _least_of_one_size(ask, [branches for _, _, branches in equals], least)
        if found:
            least, tree = found
            yield tree


def _least_of_one_size(ask: Ask, vectors: Iterable[Branches], cutoff: int) -> Found | None:
    """Vectors by rising number of branches -> the least cost below `cutoff` and the tree that stands for it.

    Of trees of that cost the one with the fewest branches stands, then the first in canonical order.
    """
    found: list[BranchTree] = []
    for branches in vectors:
        tie = bool(found) and sum(found[0].branches) == sum(branches)
        better = ask(branches, cutoff + tie, None)
        if better:
            found = [*found, better[1]] if better[0] == cutoff else [better[1]]
            cutoff = better[0]
    return (cutoff, min(_first_tree(ask, tree, cutoff) for tree in found)) if found else None


def _first_tree(ask: Ask, tree: BranchTree, cost: int) -> BranchTree:
    """Map a tree of least cost to the first in canonical order of those with the same numbers of branches.

    Each task in turn is offered the branches before its own, and the tree that a yes brings goes on in its place.
    """
    pins = no_pins(tree.num_locations, tree.num_tasks)
    for location in range(tree.num_locations):
        for task in range(tree.num_tasks):
            pins.tasks[location] |= 1 << task
            for head in _earlier_heads(tree, location, task):
                pins.mates[location, head] |= 1 << task
                found = ask(tree.branches, cost + 1, pins)
                if found:
                    tree = found[1]
                    break
                pins.mates[location, head] ^= 1 << task
            else:
                partition = tree.groups[location]
                pins.mates[location, partition.index(partition[task])] |= 1 << task
    return tree


def _earlier_heads(tree: BranchTree, location: int, task: int) -> Iterator[int]:
    """The first tasks of those branches of a location, in order, that come before a task's own and share its parent."""
    parents = tree.groups[location - 1] if location else (0,) * tree.num_tasks
    partition = tree.groups[location]
    heads = (partition.index(branch) for branch in range(partition[task]))
    return (head for head in heads if parents[head] == parents[task])
