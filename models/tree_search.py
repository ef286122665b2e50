"""Search over branch trees: every tree, their number, and the Pareto front of cost against budget.

Letters: T tasks, D locations. Vandenhende et al. 2020, section 3.2.
"""

import math
from collections.abc import Callable, Sequence

from models.branch_tree import Affinity, BranchTree, task_distances
from models.exhaustive_search import count_trees, enumerate_trees, exhaustive_front
from models.search_problem import MOST_TASKS, Limit, Point, SearchProblem, SearchResult

__all__ = [
    "METHODS",
    "Limit",
    "Point",
    "SearchResult",
    "best_within",
    "count_trees",
    "enumerate_trees",
    "pareto_front",
]

FEW_TREES = 500_000  # walked in 0.7 s; loading the compiled search takes 2, compiling it once 14


def pareto_front(
    affinity: Affinity,
    block_costs: Sequence[float],
    head_costs: Sequence[float],
    *,
    budget: float | None = None,
    method: str = "auto",
    share_first: bool = False,
    limits: Sequence[Limit] = (),
    time_limit_s: float = 60.0,
) -> SearchResult:
    """Map affinities [D, T, T] and costs per block and head to the trees that no other tree beats in cost and budget.

    `budget` and `limits` keep to trees of at most those sizes, `share_first` to trees with one branch at location 1.
    Among trees of equal cost and budget the one with the fewest branches stands, then the first in order.

    Method "auto" walks all trees where there are at most 500,000, else searches exactly if a nominal machine does
    that within `time_limit_s`, else by beam. The limit counts work and no clock: every machine gives the same answer.
    """
    if method != "auto" and method not in METHODS:
        raise ValueError(f"method {method!r}: use one of {', '.join(['auto', *METHODS])}")
    distances = task_distances(affinity)
    unit = Limit(block_costs=block_costs, head_costs=head_costs, most=math.inf if budget is None else budget)
    for name, limit in [("budget", unit), *(("limit", limit) for limit in limits)]:
        _check(name, limit, BranchTree.shared(len(distances[0]), len(distances)))
    problem = SearchProblem(
        distances=tuple(tuple(map(tuple, rows)) for rows in distances),
        block_costs=tuple(block_costs),
        head_costs=tuple(head_costs),
        limits=(*limits, *([unit] if budget is not None else [])),
        share_first=share_first,
    )
    return METHODS[method](problem) if method != "auto" else _auto(problem, time_limit_s)


def best_within(result: SearchResult, budget: float) -> Point:
    """Map a search result and a budget to the least-cost point within it."""
    within = [point for point in result.points if point.budget <= budget]
    if not within:
        raise ValueError(f"budget {budget:,} is below that of the smallest tree, {result.points[0].budget:,}")
    return within[-1]


def _check(name: str, unit: Limit, shared: BranchTree) -> None:
    """Refuse costs of the wrong length, and a limit that not even the fully shared tree keeps."""
    smallest = shared.budget(unit.block_costs, unit.head_costs)
    if unit.most < smallest:
        raise ValueError(f"{name} {unit.most:,} is below that of the fully shared tree, {smallest:,}; raise it to that")


def _auto(problem: SearchProblem, time_limit_s: float) -> SearchResult:
    trees = count_trees(problem.num_tasks, problem.num_locations - problem.share_first)
    if trees <= FEW_TREES and problem.num_tasks <= MOST_TASKS:
        return exhaustive_front(problem)
    from models.exact_search import NO_LIMIT, WORK_PER_SECOND, exact_front

    return exact_front(problem, effort=int(min(time_limit_s * WORK_PER_SECOND, NO_LIMIT))) or _beam(problem)


def _exact(problem: SearchProblem) -> SearchResult:
    from models.exact_search import exact_front

    result = exact_front(problem)
    assert result is not None, "without a limit on the effort there is always a front"
    return result


def _beam(problem: SearchProblem) -> SearchResult:
    from models.beam_search import beam_front

    return beam_front(problem)


# The two compiled searches are imported where they are called: numba alone takes longer to load than few trees to walk.
METHODS: dict[str, Callable[[SearchProblem], SearchResult]] = {
    "exhaustive": exhaustive_front,
    "exact": _exact,
    "beam": _beam,
}
