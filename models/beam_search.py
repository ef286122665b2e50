"""Beam search: a front for more tasks than an exact search reaches, each point with a proved lower bound.

Letters: T tasks, D locations, N size classes, W trees in each, S seeds. Vandenhende et al. 2020, section 3.2.
"""

import numpy as np

from models.branch_tree import BranchTree
from models.partition_bound import partition_bounds, size_bounds
from models.search_problem import SearchProblem, SearchResult, falling
from models.tree_moves import Beam, Space, grow

CLASSES = 8000
WIDTH = 16
WORK = 1 << 30  # T^2 D^2 per expanded tree: about 20 s for 40 tasks and 5 locations, where the beam mostly ends before


def beam_front(problem: SearchProblem) -> SearchResult:
    """Map a problem to a front and lower bounds: no allowed tree smaller than `points[i + 1]` costs less than
    `lower_bounds[i]`, and no allowed tree at all less than the last.

    Partitions that are good at one location alone start a beam of trees in classes of size, one beam per unit that
    counts: under a limit in FLOPs a beam over classes of parameters alone stops far from the best tree.
    """
    locations, tasks = problem.num_locations, problem.num_tasks
    if not problem.allows((1,) * locations):
        raise ValueError("not even the fully shared tree keeps the limits; raise them")
    distances = np.triu(np.asarray(problem.distances, dtype=float), 1)
    distances += distances.transpose(0, 2, 1)
    partitions = [_partitions(rows) for rows in distances]
    starts = [row for found, _ in [*partitions, _partitions(distances.mean(axis=0))] for row in found]
    seeds = np.repeat(np.array(starts)[:, None], locations, axis=1)
    if problem.share_first:
        seeds[:, 0] = 0
    cutting = [limit.block_costs for limit in problem.limits if not limit.holds((tasks,) * locations)]
    for axis in dict.fromkeys(map(tuple, cutting)):
        if axis != problem.block_costs:
            seeds = np.concatenate([seeds, _beam(problem, distances, np.array(axis, dtype=float), seeds)])
    found = map(BranchTree, _beam(problem, distances, np.array(problem.block_costs, dtype=float), seeds))
    allowed = {tree: problem.point(tree) for tree in found if problem.allows(tree.branches)}
    front = falling((point.budget, round(point.cost, 12), tree) for tree, point in allowed.items())
    points = [allowed[tree] for tree in front]
    wanted = [np.where(_reachable(problem, d), sums, 0.0) for d, (_, sums) in enumerate(partitions)]
    bounds_DT = np.array([partition_bounds(rows, sums) for rows, sums in zip(distances, wanted, strict=True)])
    proved = size_bounds(problem, bounds_DT, [point.budget for point in points[1:]])
    bounds = [min(bound, point.cost) for bound, point in zip(proved, points, strict=True)]
    optimal = all(point.cost - bound <= 1e-9 for bound, point in zip(bounds, points, strict=True))
    return SearchResult(points=points, method="beam", optimal=optimal, lower_bounds=bounds)


def _partitions(distances: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Map one location's dissimilarities [T, T] to good partitions of every number of branches, rows of [T], and their
    sums of diameters [T + 1].
    """
    tasks = len(distances)
    space = Space(distances[None], np.ones(1), np.zeros((0, 1)), np.zeros(0), False, 1.0, float(tasks))
    # Classes by the root of the size: 2 T^2 keep every number of branches apart.
    beam = _empty_beam(2 * tasks * tasks, 1, tasks)
    grow(space, beam, _ends(1, tasks), WORK // tasks**2)
    sums = np.full(tasks + 1, np.inf)
    found = []
    for n in np.flatnonzero(np.isfinite(beam.costs[:, 0])):
        branches = round(beam.sizes[n, 0])
        sums[branches] = beam.costs[n, 0] * branches
        found.append(beam.trees[n, 0, 0])
    # A task taken out of a branch widens none: more branches never cost a larger sum.
    return found, np.minimum.accumulate(sums)


def _beam(problem: SearchProblem, distances: np.ndarray, axis: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Map block costs whose sum is a tree's class, and seeds [S, D, T], to the trees that none beats, [S, D, T]."""
    locations, tasks = problem.num_locations, problem.num_tasks
    rates = np.array([limit.block_costs for limit in problem.limits], dtype=float).reshape(-1, locations)
    most = np.array([limit.most - sum(limit.head_costs) for limit in problem.limits], dtype=float)
    same = [top for rate, top in zip(rates, most, strict=True) if np.array_equal(rate, axis)]
    high = min([tasks * axis.sum(), *same])
    # Rounding must not turn away a tree that just fits; what does not fit is left out at the end.
    space = Space(distances, axis, rates, most + 1e-12 * np.abs(most), problem.share_first, axis.sum(), high)
    beam = _empty_beam(CLASSES, locations, tasks)
    ends = _ends(locations, tasks)
    if problem.share_first:
        ends[:, 0] = 0
    grow(space, beam, np.concatenate([ends, seeds]).astype(np.int16), WORK // (tasks * locations) ** 2)
    full = np.flatnonzero(np.isfinite(beam.costs))
    costs, sizes = beam.costs.ravel()[full].round(12), beam.sizes.ravel()[full]
    order = np.lexsort((costs, sizes))
    kept = costs[order] < np.minimum.accumulate(np.append(np.inf, costs[order]))[:-1]
    return np.concatenate([ends[:1], beam.trees.reshape(-1, locations, tasks)[full[order[kept]]]])


def _reachable(problem: SearchProblem, location: int) -> list[bool]:
    """Whether the limits let a tree have j branches at a location, for j = 0 .. T: then as many below, one above."""
    below = problem.num_locations - location
    counts = range(1, problem.num_tasks + 1)
    return [False, *(problem.allows((1,) * location + (count,) * below) for count in counts)]


def _empty_beam(classes: int, locations: int, tasks: int) -> Beam:
    costs = np.full((classes, WIDTH), np.inf)
    trees = np.zeros((classes, WIDTH, locations, tasks), dtype=np.int16)
    return Beam(costs, costs.copy(), trees, np.zeros(costs.shape, dtype=np.bool_), np.full(classes, np.inf))


def _ends(locations: int, tasks: int) -> np.ndarray:
    """The fully shared and the fully split tree, [2, D, T]."""
    ends = np.zeros((2, locations, tasks), dtype=np.int16)
    ends[1] = np.arange(tasks)
    return ends
