import math
from fractions import Fraction
from itertools import combinations

import pytest
import torch
from torch import Tensor

from models.branch_tree import BranchTree
from models.tree_search import METHODS, Limit, best_within, count_trees, enumerate_trees, pareto_front

COUNTS = {
    3: [5, 12, 22, 35, 51],
    4: [15, 60, 154, 315, 561],
    5: [52, 358, 1_304, 3_455, 7_556],
    6: [203, 2_471, 12_915, 44_590, 120_196],
    8: [4_140, 167_894, 1_855_570, 11_035_095, 45_592_666],
    10: [115_975, 16_733_779, 402_215_465, 4_183_174_520, 26_740_775_306],
}
TABLE = [(tasks, locations, n) for tasks, row in COUNTS.items() for locations, n in enumerate(row, start=1)]
EVERY_METHOD = ["auto", *METHODS]
PROVED = ["auto", "exhaustive", "exact"]  # on small problems auto is no beam


def _affinity(locations: int, tasks: int, seed: int, decimals: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(locations, tasks, tasks, generator=generator).double().round(decimals=decimals)
    values = values.triu(1) + values.triu(1).mT
    values.diagonal(dim1=1, dim2=2).fill_(1)
    return values


@pytest.mark.parametrize(("tasks", "locations", "number"), TABLE)
def test_count_trees_meets_the_table(tasks: int, locations: int, number: int) -> None:
    assert count_trees(tasks, locations) == number


@pytest.mark.parametrize("tasks", range(1, 12))
def test_one_location_gives_the_bell_numbers(tasks: int) -> None:
    """Bell's triangle: each row starts with the end of the one before, each entry adds its left and upper left."""
    row = [1]
    for _ in range(tasks - 1):
        following = [row[-1]]
        for above in row:
            following.append(following[-1] + above)
        row = following
    assert count_trees(tasks, 1) == row[-1]


@pytest.mark.parametrize(("tasks", "locations", "number"), [case for case in TABLE if case[2] <= 45_000])
def test_enumerate_trees_lists_every_tree_once_in_order(tasks: int, locations: int, number: int) -> None:
    trees = list(enumerate_trees(tasks, locations))
    assert len(trees) == len(set(trees)) == number
    assert trees == sorted(trees)
    assert trees[0] == BranchTree.shared(tasks, locations)
    assert trees[-1] == BranchTree.split(tasks, locations)


def test_one_task_has_one_tree() -> None:
    assert list(enumerate_trees(1, 3)) == [BranchTree.shared(1, 3)]


def _naive_front(
    affinity: Tensor, blocks: list[int], heads: list[int], decimals: int, *, share_first: bool
) -> list[BranchTree]:
    """The definition over all trees, in fractions: decimals that are equal in sum are equal."""
    scale = 10**decimals
    distances = [[[1 - Fraction(round(v * scale), scale) for v in row] for row in rows] for rows in affinity.tolist()]

    def cost(tree: BranchTree) -> Fraction:
        total = Fraction(0)
        for location, rows in enumerate(distances):
            members = tree.members(location)
            widest = [max((rows[a][b] for a, b in combinations(branch, 2)), default=0) for branch in members]
            total += Fraction(sum(widest), len(members))
        return total

    trees = [t for t in enumerate_trees(len(heads), len(blocks)) if not share_first or t.branches[0] == 1]
    front: list[BranchTree] = []
    least = None
    for _, found, _, tree in sorted((t.budget(blocks, heads), cost(t), sum(t.branches), t) for t in trees):
        if least is None or found < least:
            front.append(tree)
            least = found
    return front


@pytest.mark.parametrize("method", PROVED)
@pytest.mark.parametrize("share_first", [False, True])
@pytest.mark.parametrize(
    ("tasks", "locations", "blocks", "decimals"),
    [
        (1, 2, [1, 1], 6),
        (4, 1, [3], 6),
        (4, 3, [5, 3, 1], 6),
        (4, 4, [1, 2, 4, 8], 6),
        (4, 3, [2, 2, 2], 1),
        (5, 2, [0, 3], 1),
        (4, 3, [0, 0, 0], 1),
    ],
)
def test_front_is_the_naive_filter_of_all_trees(
    method: str, share_first: bool, tasks: int, locations: int, blocks: list[int], decimals: int
) -> None:
    heads = list(range(10, 10 + tasks))
    for seed in range(3):
        affinity = _affinity(locations, tasks, seed, decimals)
        result = pareto_front(affinity, blocks, heads, method=method, share_first=share_first)
        expected = _naive_front(affinity, blocks, heads, decimals, share_first=share_first)
        assert [point.tree for point in result.points] == expected
        assert result.optimal


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_front_states_its_trees_truly_and_falls_strictly(method: str) -> None:
    affinity, blocks, heads = _affinity(4, 5, seed=0), [1, 2, 3, 4], [7] * 5
    result = pareto_front(affinity, blocks, heads, method=method)
    assert result.method in METHODS
    for tree, cost, budget in result.points:
        assert cost == tree.cost(affinity)
        assert budget == tree.budget(blocks, heads)
    costs, budgets = [p.cost for p in result.points], [p.budget for p in result.points]
    assert budgets == sorted(set(budgets))
    assert costs == sorted(set(costs), reverse=True)
    assert result.points[0].tree == BranchTree.shared(5, 4)
    assert result.points[-1].tree == BranchTree.split(5, 4)
    assert len(result.lower_bounds) == len(costs)
    assert all(bound <= cost for bound, cost in zip(result.lower_bounds, costs, strict=True))
    assert not result.optimal or result.lower_bounds == pytest.approx(costs)


@pytest.mark.parametrize("method", PROVED)
def test_budget_keeps_the_front_up_to_it(method: str) -> None:
    affinity, blocks, heads = _affinity(3, 4, seed=1), [5, 3, 2], [1] * 4
    whole = pareto_front(affinity, blocks, heads, method=method).points
    for _, _, budget in whole:
        kept = pareto_front(affinity, blocks, heads, budget=budget, method=method).points
        assert kept == [point for point in whole if point.budget <= budget]
        assert kept[-1].budget == budget


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_every_limit_holds_in_its_own_unit(method: str) -> None:
    affinity, blocks, heads = _affinity(3, 5, seed=3), [5, 3, 2], [1] * 5
    flops = Limit(block_costs=[1, 10, 30], head_costs=[2] * 5, most=130)
    memory = Limit(block_costs=[7, 1, 1], head_costs=[0] * 5, most=25)
    result = pareto_front(affinity, blocks, heads, method=method, budget=40, limits=[flops, memory])
    keeping = [
        tree
        for tree in enumerate_trees(5, 3)
        if tree.budget(blocks, heads) <= 40
        and all(tree.budget(unit.block_costs, unit.head_costs) <= unit.most for unit in (flops, memory))
    ]
    assert {point.tree for point in result.points} <= set(keeping)
    if result.optimal:
        assert result.points[-1].cost == min(tree.cost(affinity) for tree in keeping)


@pytest.mark.parametrize("method", PROVED)
def test_equal_trees_give_way_to_fewer_branches_then_canonical_order(method: str) -> None:
    alike = torch.ones(2, 3, 3)
    assert [p.tree for p in pareto_front(alike, [1, 1], [1] * 3, method=method).points] == [BranchTree.shared(3, 2)]
    assert [p.tree for p in pareto_front(alike, [0, 0], [1] * 3, method=method).points] == [BranchTree.shared(3, 2)]
    one_stranger = torch.ones(1, 3, 3)
    one_stranger[0, 0, 1:] = one_stranger[0, 1:, 0] = 0
    one_stranger[0, 1, 2] = one_stranger[0, 2, 1] = 0
    front = pareto_front(one_stranger, [1], [1] * 3, method=method).points
    assert front[1].tree == BranchTree([[0, 0, 1]])  # as good as [0, 1, 0] and [0, 1, 1]


def test_one_cheap_location_is_split_before_a_dear_one() -> None:
    affinity = _affinity(1, 4, seed=0).expand(2, 4, 4)
    second = pareto_front(affinity, [100, 1], [1] * 4).points[1]
    assert second.tree.branches == (1, 2)


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_a_budget_below_the_shared_tree_is_refused_with_both_numbers(method: str) -> None:
    with pytest.raises(ValueError, match=r"budget 1,013 is below .* fully shared tree, 1,014"):
        pareto_front(_affinity(2, 4, seed=0), [1_000, 10], [1] * 4, budget=1_013, method=method)


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_a_limit_below_the_shared_tree_is_refused_with_both_numbers(method: str) -> None:
    limit = Limit(block_costs=[1_000, 10], head_costs=[1] * 4, most=1_013)
    with pytest.raises(ValueError, match=r"limit 1,013 is below .* fully shared tree, 1,014"):
        pareto_front(_affinity(2, 4, seed=0), [1, 1], [1] * 4, limits=[limit], method=method)


def test_an_unknown_method_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match=f"'greedy': use one of {', '.join(EVERY_METHOD)}"):
        pareto_front(_affinity(2, 3, seed=0), [1, 1], [1] * 3, method="greedy")


def test_too_many_trees_are_refused_with_their_number() -> None:
    with pytest.raises(ValueError, match=r"11,035,095 trees, more than the 2,000,000 .* share_first=True"):
        pareto_front(_affinity(4, 8, seed=0), [1] * 4, [1] * 8, method="exhaustive")


def test_costs_that_do_not_fit_the_affinity_are_refused() -> None:
    with pytest.raises(ValueError, match="block_costs has 3 entries"):
        pareto_front(_affinity(2, 3, seed=0), [1, 1, 1], [1] * 3)
    with pytest.raises(ValueError, match="head_costs has 2 entries"):
        pareto_front(_affinity(2, 3, seed=0), [1, 1], [1] * 2)
    limit = Limit(block_costs=[1], head_costs=[1] * 3, most=10)
    with pytest.raises(ValueError, match="block_costs has 1 entries"):
        pareto_front(_affinity(2, 3, seed=0), [1, 1], [1] * 3, limits=[limit])


def test_auto_walks_few_trees_proves_more_and_beams_where_time_is_short() -> None:
    def method(tasks: int, time_limit_s: float) -> str:
        affinity = _affinity(4, tasks, seed=0)
        return pareto_front(affinity, [1] * 4, [1] * tasks, time_limit_s=time_limit_s).method

    assert method(5, 0) == "exhaustive"
    assert method(8, 60) == method(8, math.inf) == "exact"
    assert method(8, 0) == "beam"


def test_six_tasks_at_four_locations_with_a_shared_first_block() -> None:
    result = pareto_front(_affinity(4, 6, seed=2), [1, 2, 3, 4], [1] * 6, share_first=True)
    assert {point.tree.branches[0] for point in result.points} == {1}
    whole = pareto_front(_affinity(4, 6, seed=2), [1, 2, 3, 4], [1] * 6)
    for point in result.points:
        assert best_within(whole, point.budget).cost <= point.cost


def test_best_within_is_the_least_cost_that_fits() -> None:
    affinity, blocks, heads = _affinity(3, 4, seed=4), [5, 3, 2], [1] * 4
    result = pareto_front(affinity, blocks, heads)
    for budget in range(14, 50):
        fitting = [t.cost(affinity) for t in enumerate_trees(4, 3) if t.budget(blocks, heads) <= budget]
        tree, cost, size = best_within(result, budget)
        assert cost == tree.cost(affinity) == min(fitting)
        assert size <= budget
    assert best_within(result, math.inf).cost == 0
    with pytest.raises(ValueError, match="budget 13 is below that of the smallest tree, 14"):
        best_within(result, 13)
