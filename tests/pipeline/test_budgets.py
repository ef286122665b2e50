"""Budgets as people write them."""

from typing import Any

import pytest

from pipeline.budgets import Costs, Request, requests
from pipeline.strategies import Trees

COSTS: dict[str, Costs] = {"params": ([100, 300], [10, 20]), "flops": ([7000, 2000], [500, 500])}


def trees(*budgets: Any, **more: Any) -> Trees:
    return Trees.model_validate({"budgets": list(budgets), **more})


def test_a_multiple_is_one_of_the_fully_shared_network_and_a_number_is_itself() -> None:
    assert requests(trees("1x", "1.5x", 2000, 1e6), COSTS) == [
        Request("1x", {"params": 430}),
        Request("1.5x", {"params": 645}),
        Request("2000", {"params": 2000}),
        Request("1000000.0", {"params": 1e6}),
    ]
    assert requests(trees("1.5x", unit="flops"), COSTS) == [Request("1.5x", {"flops": 15_000})]


def test_a_budget_may_hold_in_both_units_at_once() -> None:
    (request,) = requests(trees({"params": "2x", "flops": 12_000}, unit="flops"), COSTS)
    assert request.limits == {"params": 860, "flops": 12_000}
    assert request.text == "params 2x, flops 12000"
    assert request.name == "budget-params-2x-flops-12000"


@pytest.mark.parametrize("budget", ["0.9x", 429, {"params": 429, "flops": "2x"}])
def test_a_budget_below_the_fully_shared_network_is_refused_with_both_numbers(budget: Any) -> None:
    with pytest.raises(ValueError, match=r"trees\.budgets\[1\].*387|429.*430"):
        requests(trees("2x", budget), COSTS)


@pytest.mark.parametrize("budget", [{"params": "2x"}, {"params": "2x", "flops": "many"}, {"flop": 1, "params": 1}, []])
def test_half_a_budget_is_refused(budget: Any) -> None:
    with pytest.raises(ValueError, match="budgets"):
        trees(budget)
