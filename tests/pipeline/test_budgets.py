"""Budgets as people write them."""

import pytest

from pipeline.budgets import budget_limits
from pipeline.config import Trees

BLOCKS, HEADS = [100, 300], [10, 20]


def test_a_multiple_is_one_of_the_fully_shared_network_and_a_number_is_itself() -> None:
    trees = Trees(budgets=["1x", "1.5x", 2000, 1e6])
    assert budget_limits(trees, BLOCKS, HEADS) == {"1x": 430, "1.5x": 645, "2000": 2000, "1000000.0": 1e6}


@pytest.mark.parametrize("budget", ["0.9x", 429])
def test_a_budget_below_the_fully_shared_network_is_refused_with_both_numbers(budget: str | int) -> None:
    with pytest.raises(ValueError, match=r"trees\.budgets\[1\].*387|429.*430"):
        budget_limits(Trees(budgets=["2x", budget]), BLOCKS, HEADS)
