"""How trees' cost and their results are related."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from pipeline.results import cost_against_delta


def trees(costs: list[float], deltas: list[float], sizes: list[int] | None = None) -> list[dict[str, Any]]:
    return [
        {"cost": cost, "params": size, "delta_mtl": [delta - 1, delta + 1], "delta_mtl_val": [2 * delta]}
        for cost, delta, size in zip(costs, deltas, sizes or range(len(costs)), strict=True)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_it_is_spearmans_correlation_with_its_p(seed: int) -> None:
    draw = np.random.default_rng(seed)
    costs, deltas = draw.normal(size=15).round(1).tolist(), draw.normal(size=15).tolist()
    found, wanted = cost_against_delta(trees(costs, deltas)), stats.spearmanr(costs, deltas)
    assert found["spearman"] == found["spearman_val"] == pytest.approx(wanted.statistic)  # pyright: ignore
    assert found["p_value"] == pytest.approx(wanted.pvalue, abs=0.03)  # pyright: ignore


def test_three_trees_say_nothing() -> None:
    assert set(cost_against_delta(trees([1, 2, 3], [3, 2, 1])).values()) == {None}


def test_size_alone_makes_no_relation_among_trees_of_one_size() -> None:
    """Larger trees are better here; of one size, cost is pure chance."""
    draw = np.random.default_rng(0)
    sizes = np.repeat(np.arange(1, 9), 6)
    costs, deltas = -sizes + 0.1 * draw.normal(size=48), sizes + 0.1 * draw.normal(size=48)
    found = cost_against_delta(trees(costs.tolist(), deltas.tolist(), sizes.tolist()))
    assert found["spearman"] is not None
    assert found["spearman"] < -0.9
    assert found["same_size_p"] is not None
    assert found["same_size_p"] > 0.05


def test_a_relation_among_trees_of_one_size_is_found_against_the_trend_of_size() -> None:
    sizes = np.repeat(np.arange(1, 9), 6)
    within = np.tile(np.arange(6), 8)
    found = cost_against_delta(trees((10 * sizes + within).tolist(), (10 * sizes - within).tolist(), sizes.tolist()))
    assert found["spearman"] is not None
    assert found["spearman"] > 0.9
    assert found["same_size"] == pytest.approx(-1)
    assert found["same_size_p"] is not None
    assert found["same_size_p"] < 0.001


def test_trees_of_sizes_of_their_own_have_no_company() -> None:
    found = cost_against_delta(trees([4, 3, 2, 1], [1, 2, 3, 4]))
    assert found["spearman"] == pytest.approx(-1)
    assert found["same_size"] is None
