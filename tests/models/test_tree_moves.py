"""What the beam records of a tree is what the tree says of itself, and the beam holds what it is said to hold."""

import numpy as np
import pytest

from models.branch_tree import BranchTree
from models.tree_moves import Beam, Space, grow

TASKS, LOCATIONS = 7, 3


def _beam(classes: int, width: int) -> Beam:
    costs = np.full((classes, width), np.inf)
    trees = np.zeros((classes, width, LOCATIONS, TASKS), dtype=np.int16)
    return Beam(costs, costs.copy(), trees, np.zeros(costs.shape, dtype=np.bool_), np.full(classes, np.inf))


def _space(*, most: float, share_first: bool) -> Space:
    upper = np.triu(np.random.default_rng(3).uniform(size=(LOCATIONS, TASKS, TASKS)), 1)
    axis = np.array([1.0, 2.0, 5.0])
    rates = np.array([[4.0, 2.0, 1.0]])
    return Space(upper + upper.transpose(0, 2, 1), axis, rates, np.array([most]), share_first, 8.0, 56.0)


@pytest.mark.parametrize("most", [7.0, 25.0, 49.0])
@pytest.mark.parametrize("share_first", [False, True])
@pytest.mark.parametrize("width", [1, 5])
def test_every_tree_is_measured_and_within_the_limits(most: float, share_first: bool, width: int) -> None:
    space, beam = _space(most=most, share_first=share_first), _beam(50, width)
    used = grow(space, beam, np.zeros((1, LOCATIONS, TASKS), dtype=np.int16), 10_000)
    assert 0 < used < 10_000
    for n, w in zip(*np.nonzero(np.isfinite(beam.costs)), strict=True):
        tree = BranchTree(beam.trees[n, w].tolist())
        assert beam.costs[n, w] == pytest.approx(tree.cost_of(space.distances.tolist()))
        assert beam.sizes[n, w] == pytest.approx(np.dot(space.axis, tree.branches))
        assert np.dot(space.rates[0], tree.branches) <= most
        assert tree.branches[0] == 1 or not share_first
    assert (beam.costs[:, :-1] <= beam.costs[:, 1:]).all()
    assert np.array_equal(beam.least, np.minimum.accumulate(beam.costs[:, 0]))


def test_grows_from_the_shared_tree_to_the_split_one() -> None:
    beam = _beam(50, 3)
    grow(_space(most=49.0, share_first=False), beam, np.zeros((1, LOCATIONS, TASKS), dtype=np.int16), 10_000)
    assert beam.costs[0, 0] > 0
    assert beam.costs[-1, 0] == 0
    assert BranchTree(beam.trees[-1, 0].tolist()) == BranchTree.split(TASKS, LOCATIONS)


def test_stops_after_the_given_number_of_expansions() -> None:
    beam = _beam(50, 3)
    assert grow(_space(most=49.0, share_first=False), beam, np.zeros((1, LOCATIONS, TASKS), dtype=np.int16), 2) == 2
