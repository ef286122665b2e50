"""The tree searches against brute force.    python -m benchmarks.trees    (about two minutes)

The exact search proves the whole Pareto front. Beside it stands what the paper does, `BranchTree.cost` over all trees;
from 10 tasks on that is walked for a few seconds only and extrapolated by the number of trees. At 6 tasks both are run
to their end and must give the same front. 40 tasks are beyond proof: there the beam's gap to a proved bound is shown.
All times are CPU seconds of this process, on one thread, with the compiled code loaded beforehand.
"""

import math
from time import process_time

import numpy as np
import torch

from models.branch_tree import task_distances
from models.search_problem import Point, SearchResult, falling
from models.tree_search import best_within, count_trees, enumerate_trees, pareto_front

SIZES = [(6, 4), (10, 4), (12, 4), (14, 4)]
MANY = (40, 5)
GROWTH = 1.7  # each block is so much larger than the one before, as in a ResNet
WALK_S = 3.0
WALKED_WHOLE = 100_000  # trees
TIMES_SHARED = [1.5, 2.0, 3.0, 5.0, 10.0]
KINDS = ["random", "structured"]


def main() -> None:
    torch.set_num_threads(1)
    _exact(_affinity("random", 3, 3))
    for tasks, locations in SIZES:
        for kind in KINDS:
            _against_walk(kind, tasks, locations)
    _beam(_affinity("structured", 3, 3))
    for kind in KINDS:
        _gap(kind, *MANY)


def _affinity(kind: str, tasks: int, locations: int) -> np.ndarray:
    """Random: each affinity drawn alone. Structured: a random tree of tasks that part more and more with depth."""
    rng = np.random.default_rng(0)
    distances = rng.random((locations, tasks, tasks))
    if kind == "structured":
        depth = np.linspace(0.3, 1.0, locations)[:, None, None]
        distances = 0.05 * distances + 0.95 * depth * _heights(rng, tasks)
    upper = np.triu(distances, 1)
    return 1 - upper - upper.transpose(0, 2, 1)


def _heights(rng: np.random.Generator, tasks: int) -> np.ndarray:
    heights, pending = np.zeros((tasks, tasks)), [(rng.permutation(tasks), 1.0)]
    while pending:
        members, height = pending.pop()
        cut = int(rng.integers(1, len(members)))
        parts = members[:cut], members[cut:]
        heights[np.ix_(*parts)] = height
        pending += [(part, height * rng.uniform(0.5, 0.95)) for part in parts if len(part) > 1]
    return np.maximum(heights, heights.T)


def _costs(affinity: np.ndarray) -> tuple[list[float], list[float]]:
    locations, tasks = affinity.shape[:2]
    return [round(100 * GROWTH**location) for location in range(locations)], [1] * tasks


def _exact(affinity: np.ndarray) -> SearchResult:
    return pareto_front(affinity.tolist(), *_costs(affinity), method="exact")


def _beam(affinity: np.ndarray) -> SearchResult:
    return pareto_front(affinity.tolist(), *_costs(affinity), method="beam")


def _against_walk(kind: str, tasks: int, locations: int) -> None:
    affinity = _affinity(kind, tasks, locations)
    started = process_time()
    result = _exact(affinity)
    exact_s = process_time() - started
    total = count_trees(tasks, locations)
    points, walked, walk_s = _walk(affinity, math.inf if total <= WALKED_WHOLE else WALK_S)
    share = walked / total
    if share == 1:
        assert [(p.tree, p.budget) for p in points] == [(p.tree, p.budget) for p in result.points]
        shown = f"all trees {walk_s:.2f} s, the same front"
    else:
        shown = f"all trees {_span(walk_s / share)}, extrapolated from {walked:,} trees in {walk_s:.1f} s"
    print(
        f"{tasks} tasks, {locations} locations, {kind}: exact {exact_s:.3f} s for {len(result.points)} points of "
        f"{total:,} trees; {shown}; ratio {walk_s / share / exact_s:,.0f}"
    )


def _walk(affinity: np.ndarray, seconds: float) -> tuple[list[Point], int, float]:
    """Affinities -> the front of the first trees in order, as many as fit the time; their number; the time."""
    block_costs, head_costs = _costs(affinity)
    distances = task_distances(affinity.tolist())
    least: dict[tuple[int, ...], Point] = {}
    started, walked = process_time(), 0
    for tree in enumerate_trees(affinity.shape[1], affinity.shape[0]):
        point = Point(tree, tree.cost_of(distances), tree.budget(block_costs, head_costs))
        known = least.setdefault(tree.branches, point)
        if point.cost < known.cost:
            least[tree.branches] = point
        walked += 1
        if walked % 100 == 0 and process_time() - started > seconds:
            break
    spent = process_time() - started
    trees = falling((point.budget, round(point.cost, 9), point.tree) for point in least.values())
    return [least[tree.branches] for tree in trees], walked, spent


def _span(seconds: float) -> str:
    """Seconds in the unit in which one thinks of them."""
    for unit, length in (("years", 365.25 * 86_400), ("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.2f} s"


def _gap(kind: str, tasks: int, locations: int) -> None:
    affinity = _affinity(kind, tasks, locations)
    started = process_time()
    result = _beam(affinity)
    spent = process_time() - started
    shared = result.points[0].budget
    gaps = []
    for times in TIMES_SHARED:
        point = best_within(result, times * shared)
        bound = result.lower_bounds[result.points.index(point)]
        gaps.append(f"{times:g} x {point.cost:.3f} (gap {1 - bound / point.cost if point.cost else 0:.1%})")
    print(
        f"{tasks} tasks, {locations} locations, {kind}: beam and bound {spent:.1f} s for {len(result.points)} points; "
        f"cost by size in shared trees, and its gap to the proved bound: {', '.join(gaps)}"
    )


if __name__ == "__main__":
    main()
