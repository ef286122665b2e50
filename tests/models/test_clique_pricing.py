"""Pricing against every branch."""

from itertools import combinations

import numpy as np
import pytest

from models.branch_tree import diameter
from models.clique_pricing import price, ranked_pairs

TASKS = 8


def _case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    upper = np.triu(draw.uniform(size=(TASKS, TASKS)), 1)
    prices = np.maximum(draw.uniform(-0.2, 0.4, TASKS), 0.0)
    return upper + upper.T, prices


def _least(distances: np.ndarray, prices: np.ndarray, low: int, high: int) -> tuple[float, float]:
    """The least of diameter - prices over branches with the widest pair below `low`, and from `low` to `high`."""
    rank = ranked_pairs(distances).rank
    least = [np.inf, np.inf]
    for size in range(1, TASKS + 1):
        for branch in combinations(range(TASKS), size):
            widest = max((rank[a, b] for a, b in combinations(branch, 2)), default=-1)
            if widest <= high:
                value = diameter(branch, distances.tolist()) - prices[list(branch)].sum()
                least[int(widest >= low)] = min(least[int(widest >= low)], value)
    return least[0], least[1]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("low", "high"), [(0, 27), (10, 20), (27, 27)])
def test_finds_the_branch_furthest_below_its_prices(seed: int, low: int, high: int) -> None:
    distances, prices = _case(seed)
    narrow, wide = _least(distances, prices, low, high)
    found = price(ranked_pairs(distances), prices, low, high, 10.0, 10.0, 10**6)
    assert found[1] == pytest.approx(wide)
    assert found[0] == pytest.approx(narrow if low else -prices.max())
    values = [diameter(np.flatnonzero(row).tolist(), distances.tolist()) - prices[row].sum() for row in found[2]]
    assert min(values) == pytest.approx(min(wide, min(values)))


@pytest.mark.parametrize("nodes", [0, 1, 3, 30])
def test_stays_below_every_branch_where_nodes_run_out(nodes: int) -> None:
    for seed in range(5):
        distances, prices = _case(seed)
        narrow, wide = _least(distances, prices, 14, 27)
        found = price(ranked_pairs(distances), prices, 14, 27, 10.0, 10.0, nodes)
        assert found[0] <= narrow + 1e-12
        assert found[1] <= wide + 1e-12


def test_levels_that_no_branch_passes_are_returned_with_no_branch() -> None:
    distances, prices = _case(0)
    narrow, wide, columns, _ = price(ranked_pairs(distances), prices, 14, 27, -5.0, -4.0, 10**6)
    assert (narrow, wide) == (-5.0, -4.0)
    assert len(columns) == 0


def test_pairs_rank_by_distance() -> None:
    distances, _ = _case(0)
    pairs = ranked_pairs(distances)
    assert (np.diff(pairs.lengths) >= 0).all()
    for place, (a, b) in enumerate(pairs.ends):
        assert distances[a, b] == pairs.lengths[place]
        assert pairs.rank[a, b] == pairs.rank[b, a] == place
