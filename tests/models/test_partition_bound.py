"""Lower bounds against every partition, every vector and the plain linear program over every branch."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import linprog

from models import partition_bound
from models.branch_tree import diameter
from models.partition_bound import partition_bounds, size_bounds
from models.search_problem import Limit, SearchProblem

TASKS = 6


def _distances(kind: str, tasks: int = TASKS) -> np.ndarray:
    draw = np.random.default_rng(tasks)
    values = {
        "uniform": draw.uniform(size=(tasks, tasks)),
        "ties": draw.integers(1, 4, (tasks, tasks)) / 4,
        "points": np.abs(np.subtract.outer(*[draw.uniform(size=tasks)] * 2)),
        "zeros": np.zeros((tasks, tasks)),
        "just below 0": draw.uniform(-1e-9, 1e-9, (tasks, tasks)),
    }[kind]
    upper = np.triu(values, 1)
    return upper + upper.T


KINDS = ["uniform", "ties", "points", "zeros", "just below 0"]


def _partitions(tasks: list[int]) -> Iterator[list[list[int]]]:
    if not tasks:
        yield []
        return
    first, rest = tasks[0], tasks[1:]
    for size in range(len(rest) + 1):
        for mates in combinations(rest, size):
            for others in _partitions([task for task in rest if task not in mates]):
                yield [[first, *mates], *others]


def _least_sums(distances: np.ndarray) -> np.ndarray:
    least = np.full(len(distances) + 1, np.inf)
    for branches in _partitions(list(range(len(distances)))):
        total = sum(diameter(tasks, distances.tolist()) for tasks in branches)
        least[len(branches)] = min(least[len(branches)], total)
    return least


def _plain_program(distances: np.ndarray, parts: int) -> float:
    """The set-partition program over all branches at once, without branching."""
    tasks = range(len(distances))
    columns = [branch for size in range(1, len(distances) + 1) for branch in combinations(tasks, size)]
    rows = [[float(task in branch) for branch in columns] for task in tasks]
    costs = [diameter(branch, distances.tolist()) for branch in columns]
    return linprog(costs, A_eq=[*rows, [1.0] * len(columns)], b_eq=[1.0] * len(distances) + [float(parts)]).fun


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slack", [1.0, 1.3])
def test_no_partition_costs_less_than_its_bound(kind: str, slack: float) -> None:
    distances = _distances(kind)
    least = _least_sums(distances)
    bounds = partition_bounds(distances, least * slack)
    assert (bounds[1:] <= least[1:] + 1e-12).all()
    assert bounds[[1, TASKS]] == pytest.approx(least[[1, TASKS]], abs=1e-8)


@pytest.mark.parametrize("kind", ["uniform", "ties", "points"])
def test_bounds_are_no_weaker_than_the_plain_program(kind: str) -> None:
    distances = _distances(kind)
    bounds = partition_bounds(distances, _least_sums(distances))
    for parts in range(1, TASKS + 1):
        assert bounds[parts] >= _plain_program(distances, parts) - 1e-8


def test_one_large_branch_and_single_tasks_are_proved() -> None:
    """All distances 1: j branches cost 1 at best, and the plain program proves (T - j) / (T - 1) alone."""
    distances = np.ones((9, 9)) - np.eye(9)
    sums = np.array([0.0, *[1.0] * 8, 0.0])
    assert partition_bounds(distances, sums)[1:] == pytest.approx(sums[1:])


@pytest.mark.parametrize(("name", "value"), [("NODES_AT_ONCE", 1), ("NODES", 1), ("ROUNDS", 3)])
def test_bounds_hold_where_the_work_runs_out(name: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_bound, name, value)
    for kind in KINDS:
        distances = _distances(kind)
        least = _least_sums(distances)
        assert (partition_bounds(distances, least)[1:] <= least[1:] + 1e-12).all()


@pytest.mark.parametrize("tasks", [1, 2])
def test_few_tasks_are_exact(tasks: int) -> None:
    distances = _distances("uniform", tasks)
    assert partition_bounds(distances, np.zeros(tasks + 1))[1:] == pytest.approx(_least_sums(distances)[1:])


def _problem(*, share_first: bool = False, limits: tuple[Limit, ...] = ()) -> SearchProblem:
    rows = tuple(tuple(map(tuple, _distances("uniform").tolist())) for _ in range(3))
    return SearchProblem(
        distances=rows,
        block_costs=(1.0, 2.5, 7.0),
        head_costs=(1.0,) * TASKS,
        share_first=share_first,
        limits=limits,
    )


FLOPS = Limit(block_costs=(5.0, 3.0, 1.0), head_costs=(0.0,) * TASKS, most=25.0)
SUMS = np.sort(np.random.default_rng(0).uniform(size=(3, TASKS + 1)))[:, ::-1]


def _least_cost(problem: SearchProblem, below: float) -> float:
    vectors = [vector for vector in problem.vectors() if problem.size(vector) < below]
    return min(sum(SUMS[d, b] / b for d, b in enumerate(vector)) for vector in vectors)


@pytest.mark.parametrize("share_first", [False, True])
def test_size_bounds_are_the_least_over_all_vectors(share_first: bool) -> None:
    problem = _problem(share_first=share_first)
    sizes = sorted({problem.size(vector) for vector in problem.vectors()})[1:]
    expected = [_least_cost(problem, size) for size in [*sizes, np.inf]]
    assert size_bounds(problem, SUMS, sizes) == pytest.approx(expected)


def test_size_bounds_hold_under_a_limit_and_are_sharp_at_its_end() -> None:
    problem, free = _problem(limits=(FLOPS,)), _problem()
    sizes = sorted({problem.size(vector) for vector in problem.vectors()})[1:]
    bounds = size_bounds(problem, SUMS, sizes)
    for size, bound, loose in zip([*sizes, np.inf], bounds, size_bounds(free, SUMS, sizes), strict=True):
        assert loose - 1e-12 <= bound <= _least_cost(problem, size) + 1e-12
    assert bounds[-1] == pytest.approx(_least_cost(problem, np.inf))


def test_joining_neighbouring_vectors_keeps_the_bounds_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_bound, "LIST", 2)
    problem = _problem()
    sizes = sorted({problem.size(vector) for vector in problem.vectors()})[1:]
    for size, bound in zip([*sizes, np.inf], size_bounds(problem, SUMS, sizes), strict=True):
        assert bound <= _least_cost(problem, size) + 1e-12
