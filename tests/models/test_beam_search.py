"""Beam search against every tree of small problems, and by what must hold for large ones."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from models.beam_search import beam_front
from models.branch_tree import BranchTree
from models.search_problem import Limit, SearchProblem, SearchResult
from models.tree_search import enumerate_trees


def _uniform(draw: np.random.Generator, tasks: int, locations: int) -> np.ndarray:
    return draw.uniform(size=(locations, tasks, tasks))


def _clustered(draw: np.random.Generator, tasks: int, locations: int) -> np.ndarray:
    """Points in the plane that drift apart with depth."""
    points = draw.uniform(size=(tasks, 2))
    drift = draw.normal(size=(locations, tasks, 2)) * np.linspace(0.1, 0.4, locations)[:, None, None]
    moved = points + drift
    return np.linalg.norm(moved[:, :, None] - moved[:, None], axis=-1)


def _ties(draw: np.random.Generator, tasks: int, locations: int) -> np.ndarray:
    return draw.integers(0, 4, (locations, tasks, tasks)) / 4


def _just_below_zero(draw: np.random.Generator, tasks: int, locations: int) -> np.ndarray:
    return draw.uniform(-1e-10, 0.0, (locations, tasks, tasks))


KINDS = [_uniform, _clustered, _ties, _just_below_zero]


def _problem(kind: Callable[..., np.ndarray], tasks: int, locations: int, seed: int = 0) -> SearchProblem:
    values = kind(np.random.default_rng(seed), tasks, locations)
    symmetric = np.triu(values, 1) + np.triu(values, 1).transpose(0, 2, 1)
    return SearchProblem(
        distances=tuple(tuple(map(tuple, rows)) for rows in symmetric.tolist()),
        block_costs=tuple(3.0**d for d in range(locations)),
        head_costs=(1.0,) * tasks,
    )


def _limited(problem: SearchProblem, *, share_first: bool, unit: str) -> SearchProblem:
    units = {"own": problem.block_costs, "other": problem.block_costs[::-1]}
    limits = ()
    if unit in units:
        costs = units[unit]
        limits = (Limit(block_costs=costs, head_costs=problem.head_costs, most=sum(costs) * 2.5 + problem.num_tasks),)
    return replace(problem, share_first=share_first, limits=limits)


def _assert_is_a_front(result: SearchResult, problem: SearchProblem) -> None:
    trees = [point.tree for point in result.points]
    assert result.points == [problem.point(tree) for tree in trees]
    assert all(problem.allows(tree.branches) for tree in trees)
    budgets, costs = [point.budget for point in result.points], [point.cost for point in result.points]
    assert all(a < b for a, b in pairwise(budgets))
    assert all(a > b for a, b in pairwise(costs))
    assert all(bound <= cost for bound, cost in zip(result.lower_bounds, costs, strict=True))
    assert result.lower_bounds == sorted(result.lower_bounds, reverse=True)
    gaps = [cost - bound for bound, cost in zip(result.lower_bounds, costs, strict=True)]
    assert result.optimal == (max(gaps) <= 1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share_first", [False, True])
@pytest.mark.parametrize("unit", ["none", "own", "other"])
def test_brackets_the_least_cost_of_all_trees(kind: Callable[..., np.ndarray], share_first: bool, unit: str) -> None:
    problem = _limited(_problem(kind, 5, 3), share_first=share_first, unit=unit)
    result = beam_front(problem)
    _assert_is_a_front(result, problem)
    allowed = [problem.point(tree) for tree in enumerate_trees(5, 3) if problem.allows(tree.branches)]
    for i, (point, bound) in enumerate(zip(result.points, result.lower_bounds, strict=True)):
        following = result.points[i + 1].budget if i + 1 < len(result.points) else math.inf
        assert point.cost >= min(other.cost for other in allowed if other.budget <= point.budget)
        assert bound <= min(other.cost for other in allowed if other.budget < following) + 1e-12


@pytest.mark.parametrize("kind", [_uniform, _clustered])
def test_runs_from_the_shared_to_the_split_tree(kind: Callable[..., np.ndarray]) -> None:
    points = beam_front(_problem(kind, 7, 3)).points
    assert points[0].tree == BranchTree.shared(7, 3)
    assert points[-1].tree == BranchTree.split(7, 3)


def test_is_the_same_every_time() -> None:
    problem = _problem(_clustered, 10, 3)
    assert beam_front(problem) == beam_front(problem)


def test_order_of_tasks_does_not_matter() -> None:
    problem = _problem(_clustered, 8, 2)
    flipped = tuple(tuple(row[::-1] for row in rows[::-1]) for rows in problem.distances)
    points, others = beam_front(problem).points, beam_front(replace(problem, distances=flipped)).points
    assert [(p.budget, round(p.cost, 9)) for p in points] == [(p.budget, round(p.cost, 9)) for p in others]


@pytest.mark.parametrize("most", [13, 16, 20, 26])
def test_a_limit_in_the_same_unit_only_cuts_the_front(most: int) -> None:
    """Small enough for the beam to be exact, as enumeration confirms."""
    problem = _problem(_clustered, 5, 2)
    limit = Limit(block_costs=problem.block_costs, head_costs=problem.head_costs, most=most)
    best = min(point.cost for tree in enumerate_trees(5, 2) if (point := problem.point(tree)).budget <= most)
    assert beam_front(replace(problem, limits=(limit,))).points[-1].cost == pytest.approx(best)


def test_planted_groups_are_found_and_proved() -> None:
    """Twelve tasks in three groups of no dissimilarity: the tree of the groups costs nothing."""
    groups = np.arange(12) % 3
    rows = np.broadcast_to((groups[:, None] != groups).astype(float), (4, 12, 12))
    problem = replace(
        _problem(_uniform, 12, 4), distances=tuple(tuple(map(tuple, location)) for location in rows.tolist())
    )
    result = beam_front(problem)
    assert result.points[-1].tree == BranchTree([groups.tolist()] * 4)
    assert result.points[-1].cost == result.lower_bounds[-1] == 0


def test_free_blocks_leave_the_split_tree_alone() -> None:
    """Where branches cost nothing every tree has one size."""
    problem = replace(_problem(_uniform, 4, 2), block_costs=(0.0, 0.0))
    result = beam_front(problem)
    assert [point.tree for point in result.points] == [BranchTree.split(4, 2)]
    assert result.optimal


@pytest.mark.parametrize("tasks", [1, 2])
def test_fewest_tasks(tasks: int) -> None:
    problem = _problem(_uniform, tasks, 2)
    result = beam_front(problem)
    _assert_is_a_front(result, problem)
    assert result.points[-1].tree == BranchTree.split(tasks, 2)
    assert result.optimal


def test_limits_that_no_tree_keeps_are_refused() -> None:
    problem = _problem(_uniform, 4, 2)
    limit = Limit(block_costs=problem.block_costs, head_costs=problem.head_costs, most=7)
    with pytest.raises(ValueError, match="fully shared tree"):
        beam_front(replace(problem, limits=(limit,)))
