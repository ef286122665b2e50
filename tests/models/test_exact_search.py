"""The exact search against the walk over all trees, and beyond its reach against what must hold of any front."""

from itertools import combinations

import numpy as np
import pytest

from models.branch_tree import BranchTree
from models.exact_search import WORK_PER_SECOND, exact_front
from models.exhaustive_search import enumerate_trees, exhaustive_front
from models.search_problem import Limit, SearchProblem, whole_cost, whole_distances
from models.subset_tables import NEVER, subset_tables


def _metric(rng: np.random.Generator, tasks: int, noise: float) -> np.ndarray:
    """Distances in a random tree of tasks: the height at which two of them part."""
    heights = np.zeros((tasks, tasks))

    def part(members: np.ndarray, height: float) -> None:
        if len(members) > 1:
            cut = int(rng.integers(1, len(members)))
            heights[np.ix_(members[:cut], members[cut:])] = height
            part(members[:cut], height * rng.uniform(0.5, 0.95))
            part(members[cut:], height * rng.uniform(0.5, 0.95))

    part(rng.permutation(tasks), 1.0)
    return np.maximum(heights, heights.T) + noise * rng.random((tasks, tasks))


def _distances(kind: str, tasks: int, locations: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (locations, tasks, tasks)
    metric = _metric(rng, tasks, noise=0.05)
    values = {
        "uniform": lambda: rng.random(shape),
        "coarse": lambda: rng.random(shape).round(1),
        "three values": lambda: rng.integers(0, 3, shape) / 2,
        "structured": lambda: np.stack([metric * (d + 1) + 0.05 * rng.random(shape[1:]) for d in range(locations)]) / 4,
        "nested": lambda: np.stack([metric.round(1)] * locations),
    }[kind]()
    upper = np.triu(values, 1)
    return upper + upper.transpose(0, 2, 1)


KINDS = ["uniform", "coarse", "three values", "structured", "nested"]


def _problem(
    distances: np.ndarray, block_costs: list[float], *, limits: tuple[Limit, ...] = (), share_first: bool = False
) -> SearchProblem:
    return SearchProblem(
        distances=tuple(tuple(map(tuple, rows)) for rows in distances.tolist()),
        block_costs=tuple(block_costs),
        head_costs=(1,) * distances.shape[1],
        limits=limits,
        share_first=share_first,
    )


def _random_problem(kind: str, tasks: int, locations: int, seed: int) -> SearchProblem:
    """Any block costs, some of them zero, equal or in fractions; now and then a limit or a shared first location."""
    rng = np.random.default_rng(seed)
    costs: list[list[float]] = [
        rng.integers(0, 4, locations).tolist(),
        [1] * locations,
        rng.random(locations).tolist(),
        rng.integers(1, 1000, locations).tolist(),
        [0] * locations,
    ]
    unit = rng.integers(0, 5, locations).tolist()
    most = sum(unit) + int(rng.integers(0, 1 + 2 * tasks * locations))
    limit = Limit(block_costs=unit, head_costs=(0,) * tasks, most=most)
    return _problem(
        _distances(kind, tasks, locations, seed),
        costs[seed % 5],
        limits=(limit,) if seed % 3 == 1 else (),
        share_first=seed % 4 == 3,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("tasks", "locations", "seeds"),
    [(1, 2, 2), (2, 3, 5), (3, 3, 10), (4, 3, 20), (5, 3, 10), (5, 4, 5), (6, 1, 5), (6, 2, 5), (6, 4, 2)],
)
def test_points_are_those_of_the_walk_over_all_trees(kind: str, tasks: int, locations: int, seeds: int) -> None:
    for seed in range(seeds):
        problem = _random_problem(kind, tasks, locations, seed)
        found, walked = exact_front(problem), exhaustive_front(problem)
        assert found is not None
        assert found.points == walked.points
        assert found.lower_bounds == walked.lower_bounds
        assert (found.method, found.optimal) == ("exact", True)


@pytest.mark.parametrize("kind", KINDS)
def test_numbering_the_tasks_anew_changes_no_cost_and_no_budget(kind: str) -> None:
    distances = _distances(kind, tasks=9, locations=3, seed=0)
    fronts = []
    for order in (np.arange(9), np.random.default_rng(1).permutation(9)):
        result = exact_front(_problem(distances[:, order][:, :, order], [5, 3, 2]))
        assert result is not None
        fronts.append([(point.budget, pytest.approx(point.cost)) for point in result.points])
    assert fronts[0] == fronts[1]


@pytest.mark.parametrize("kind", KINDS)
def test_no_tree_near_the_front_beats_it(kind: str) -> None:
    """Ten tasks, 4.2 G trees: every tree that merges two branches of a point, from some location up, is tried."""
    problem = _problem(_distances(kind, tasks=10, locations=4, seed=1), [8, 4, 2, 1])
    result = exact_front(problem)
    assert result is not None
    for point in result.points:
        for location in range(4):
            for pair in combinations(range(point.tree.branches[location]), 2):
                near = problem.point(_merged(point.tree, location, pair))
                best = min(p.cost for p in result.points if p.budget <= near.budget)
                assert best <= near.cost + 1e-9


def _merged(tree: BranchTree, location: int, pair: tuple[int, int]) -> BranchTree:
    """The tree in which two branches of a location are one, as are their parents."""
    groups = [list(row) for row in tree.groups]
    left, right = (tree.groups[location].index(branch) for branch in pair)
    for row in groups[: location + 1]:
        row[:] = [row[left] if branch == row[right] else branch for branch in row]
    return BranchTree(groups)


def test_less_effort_than_needed_gives_none_and_more_changes_nothing() -> None:
    problem = _problem(_distances("uniform", tasks=8, locations=3, seed=0), [5, 3, 2])
    whole = exact_front(problem)
    efforts = [0, 100, 10_000, 100_000, 1_000_000_000]
    found = [exact_front(problem, effort=effort) for effort in efforts]
    assert found[0] is found[1] is found[2] is None
    assert found[-1] == whole
    given = [result is not None for result in found]
    assert given == sorted(given)


def test_tables_beyond_memory_are_refused_with_their_size() -> None:
    problem = _problem(np.zeros((2, 26, 26)), [1, 1])
    with pytest.raises(ValueError, match=r"26 tasks and 2 locations need tables of 30 GB, more than 2; use .*'beam'"):
        exact_front(problem)
    assert exact_front(problem, effort=1 << 60) is None


def test_more_numbers_of_branches_than_the_effort_allows_are_not_even_listed() -> None:
    """14 tasks at 12 locations have 5.2 million of them, which would fill the memory before the first was searched."""
    assert exact_front(_problem(np.zeros((12, 14, 14)), [1] * 12), effort=60 * WORK_PER_SECOND) is None


@pytest.mark.parametrize("kind", KINDS)
def test_tables_hold_the_least_sum_over_all_partitions_of_a_set(kind: str) -> None:
    whole, weights = whole_distances(_problem(_distances(kind, tasks=5, locations=2, seed=0), [1, 1]))
    tables = subset_tables(whole, weights)
    assert tables.least[:, 0].tolist() == [[0] + [NEVER] * 5] * 2
    for members in range(1, 32):
        tasks = [task for task in range(5) if members >> task & 1]
        for location in range(2):
            inside = whole[location][np.ix_(tasks, tasks)]
            assert tables.diameters[location, members] == inside.max()
            least = [NEVER] * 6
            for tree in enumerate_trees(len(tasks), 1):
                (n,) = tree.branches
                # whole_cost weighs a sum of n branches by L / n.
                least[n] = min(least[n], whole_cost(tree, inside[None], weights) // int(weights[n]))
            assert tables.least[location, members].tolist() == least
