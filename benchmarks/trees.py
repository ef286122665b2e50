"""The tree searches against brute force.    python -m benchmarks.trees    (about 3 minutes)

The exact search proves the whole Pareto front. Beside it stands what the paper does, `BranchTree.cost` over all trees,
of which the first some are walked and their time is scaled to the number of all; and our own walk over all trees of six
tasks, scaled likewise. At 6 tasks both fronts must be the same. 40 tasks are beyond proof: there the beam's gap to a
proved bound is shown. One thread; the compiled code is loaded beforehand.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np
import torch

from benchmarks.lines import Goal, Line, duration, faster, figure, show
from benchmarks.timing import in_turn
from models.branch_tree import task_distances
from models.search_problem import Point, SearchResult, falling
from models.tree_search import best_within, count_trees, enumerate_trees, pareto_front

LOCATIONS = 4
TASKS = (8, 10, 12, 14)
FEW = 6  # tasks whose trees are all walked
MANY = (40, 5)
GROWTH = 1.7  # each block is so much larger than the one before, as in a ResNet
WALKED = 20_000  # trees
TIMES_SHARED = (1.5, 2.0, 3.0, 5.0, 10.0)
KINDS = ("random", "structured")
ROUNDS = 3
RATIOS = {10: Goal(least=1e4)}  # by tasks
SECONDS = {14: Goal(most=60)}


def lines() -> Iterator[Line]:
    torch.set_num_threads(1)
    for kind in KINDS:
        few = affinities(kind, FEW, LOCATIONS)
        whole = _walk(few, count_trees(FEW, LOCATIONS))
        for method in ("exact", "exhaustive"):
            assert [(p.tree, p.budget) for p in whole] == [(p.tree, p.budget) for p in front(few, method).points]
    for tasks in TASKS:
        for kind in KINDS:
            yield from _exact_lines(kind, tasks)
    for kind in KINDS:
        yield _gap(kind, *MANY)


def affinities(kind: str, tasks: int, locations: int) -> np.ndarray:
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


def front(affinity: np.ndarray, method: str) -> SearchResult:
    """The front of trees whose blocks grow with depth, and whose heads cost next to nothing."""
    return pareto_front(affinity.tolist(), *_costs(affinity), method=method)


def _exact_lines(kind: str, tasks: int) -> Iterator[Line]:
    affinity, few = affinities(kind, tasks, LOCATIONS), affinities(kind, FEW, LOCATIONS)
    ways = {
        "exact": partial(front, affinity, "exact"),
        "walk": partial(_walk, affinity, WALKED),
        "few": partial(front, few, "exhaustive"),
    }
    times = in_turn(ways, ROUNDS)
    total, walked = count_trees(tasks, LOCATIONS), count_trees(FEW, LOCATIONS)
    what = f"exact search, {tasks} tasks × {LOCATIONS} locations, {kind}"
    sides = (
        (f"all {total:,} trees, from {WALKED:,} walked", times["walk"].scaled(total / WALKED), RATIOS.get(tasks)),
        (f"our own walk, from all {walked:,} trees of {FEW} tasks", times["few"].scaled(total / walked), None),
    )
    for beside, base, goal in sides:
        line = faster(7, what, beside, times["exact"], base, goal=goal)
        yield replace(line, beside=f"{beside}: {duration(min(base.cpu))}")
    yield replace(figure(7, f"{what}: time", "", times["exact"].cpu, "s", SECONDS.get(tasks)), clock="cpu")


def _walk(affinity: np.ndarray, most: int) -> list[Point]:
    """Affinities -> the front of the first trees in order, as many as are asked for."""
    block_costs, head_costs = _costs(affinity)
    distances = task_distances(affinity.tolist())
    least: dict[tuple[int, ...], Point] = {}
    for tree in islice(enumerate_trees(affinity.shape[1], affinity.shape[0]), most):
        point = Point(tree, tree.cost_of(distances), tree.budget(block_costs, head_costs))
        known = least.setdefault(tree.branches, point)
        if point.cost < known.cost:
            least[tree.branches] = point
    trees = falling((point.budget, round(point.cost, 9), point.tree) for point in least.values())
    return [least[tree.branches] for tree in trees]


def _gap(kind: str, tasks: int, locations: int) -> Line:
    """By how much of its cost the beam's tree may be above the best one, at several sizes."""
    affinity = affinities(kind, tasks, locations)
    found: list[SearchResult] = []
    times = in_turn({"beam": lambda: found.append(front(affinity, "beam"))}, 1)
    result = found[-1]
    gaps = []
    for size in TIMES_SHARED:
        point = best_within(result, size * result.points[0].budget)
        bound = result.lower_bounds[result.points.index(point)]
        gaps.append(100 * (1 - bound / point.cost) if point.cost else 0.0)
    ends = f"{TIMES_SHARED[0]:g} to {TIMES_SHARED[-1]:g}"
    what = f"beam search, {tasks} tasks × {locations} locations, {kind}, at {ends} × the shared tree's size"
    line = figure(7, what, "its proved bound, how far below in %", gaps, "%")
    return replace(line, clock="cpu", took=duration(min(times["beam"].cpu)))


if __name__ == "__main__":
    show(lines())
