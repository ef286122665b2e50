import random
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from models.accounting import count_params
from models.branch_tree import BranchTree

PSP_HEADS = {"semseg": 23_083_539, "instances": 23_074_818, "depth": 23_074_305}


def _random_tree(rng: random.Random) -> BranchTree:
    """Split every branch at random, location by location, under an arbitrary numbering."""
    tasks, rows = rng.randint(1, 6), []
    row = [0] * tasks
    for _ in range(rng.randint(1, 5)):
        pairs = [(branch, rng.randint(0, 2)) for branch in row]
        names = sorted(set(pairs))
        rng.shuffle(names)
        row = [names.index(pair) for pair in pairs]
        rows.append(row)
    return BranchTree(rows)


def _affinity(locations: int, tasks: int, seed: int = 0) -> Tensor:
    values = torch.rand(locations, tasks, tasks, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    values = (values + values.mT) / 2
    values.diagonal(dim1=1, dim2=2).fill_(1)
    return values


RANDOM_TREES = [_random_tree(random.Random(seed)) for seed in range(40)]


@pytest.mark.parametrize("tree", RANDOM_TREES)
def test_every_location_is_a_canonical_partition_that_refines_the_one_before(tree: BranchTree) -> None:
    for location, row in enumerate(tree.groups):
        assert [b for n, b in enumerate(row) if b not in row[:n]] == list(range(tree.branches[location]))
        assert sorted(t for branch in tree.members(location) for t in branch) == list(range(tree.num_tasks))
        assert all(row[t] == b for b, branch in enumerate(tree.members(location)) for t in branch)
    for location in range(1, tree.num_locations):
        coarse = [set(branch) for branch in tree.members(location - 1)]
        assert all(any(set(branch) <= above for above in coarse) for branch in tree.members(location))


@pytest.mark.parametrize("tree", RANDOM_TREES)
def test_numbering_of_branches_does_not_matter(tree: BranchTree) -> None:
    renamed = BranchTree([[7 - branch for branch in row] for row in tree.groups])
    assert renamed == tree
    assert hash(renamed) == hash(tree)
    assert BranchTree(torch.tensor(tree.groups)) == tree  # pyright: ignore[reportArgumentType]


def test_trees_are_ordered_and_frozen() -> None:
    shared, split = BranchTree.shared(3, 2), BranchTree.split(3, 2)
    assert sorted([split, BranchTree([[0, 0, 0], [0, 1, 0]]), shared])[0] == shared
    with pytest.raises(AttributeError):
        shared.groups = ()  # pyright: ignore[reportAttributeAccessIssue]


def test_the_two_extreme_trees() -> None:
    assert BranchTree.shared(4, 3).branches == (1, 1, 1)
    assert BranchTree.split(4, 3).branches == (4, 4, 4)
    assert BranchTree.split(4, 3).cost(_affinity(3, 4)) == 0


@pytest.mark.parametrize(
    ("groups", "match"),
    [
        ([], "at least one location and one task"),
        ([[]], "at least one location and one task"),
        ([[0, 0], [0, 0, 1]], r"location 2 \(groups\[1\]\) lists 3 tasks"),
        ([[0, 0], [0, 1], [0, 0]], r"location 3 \(groups\[2\]\): tasks 0 and 1 share a branch but ran apart"),
        ([[0, 1, 1], [0, 0, 1]], r"location 2 \(groups\[1\]\): tasks 0 and 1"),
    ],
)
def test_what_is_no_tree_is_refused_with_its_location(groups: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        BranchTree(groups)


def _naive_cost(tree: BranchTree, affinity: Tensor) -> float:
    total = 0.0
    for d, row in enumerate(tree.groups):
        worst = dict.fromkeys(row, 0.0)
        for a in range(tree.num_tasks):
            for b in range(tree.num_tasks):
                if a != b and row[a] == row[b]:
                    worst[row[a]] = max(worst[row[a]], 1 - float(affinity[d, a, b]))
        total += sum(worst.values()) / len(worst)
    return total


@pytest.mark.parametrize("tree", RANDOM_TREES)
def test_cost_is_the_sum_of_mean_branch_diameters(tree: BranchTree) -> None:
    affinity = _affinity(tree.num_locations, tree.num_tasks)
    assert tree.cost(affinity) == pytest.approx(_naive_cost(tree, affinity))
    assert tree.cost(affinity.tolist()) == tree.cost(affinity)


@pytest.mark.parametrize(
    ("affinity", "match"),
    [
        (torch.ones(3, 3, 3), "3 locations and 3 tasks; the tree has 2 and 3"),
        (torch.ones(2, 4, 4), "2 locations and 4 tasks"),
        (torch.ones(2, 3, 4), r"\[locations, tasks, tasks\]"),
        ([], r"\[locations, tasks, tasks\]"),
        (torch.full((2, 3, 3), float("nan")), "not finite"),
    ],
)
def test_affinities_that_do_not_fit_are_refused(affinity: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        BranchTree.shared(3, 2).cost(affinity)


@pytest.mark.parametrize("tree", RANDOM_TREES)
def test_budget_counts_every_branch_and_every_head(tree: BranchTree) -> None:
    blocks, heads = [10**d for d in range(tree.num_locations)], [100_000 + t for t in range(tree.num_tasks)]
    expected = sum(blocks[d] for d in range(tree.num_locations) for _ in tree.members(d)) + sum(heads)
    assert tree.budget(blocks, heads) == expected
    assert isinstance(tree.budget(blocks, heads), int)


def test_costs_of_another_length_are_refused() -> None:
    tree = BranchTree.shared(3, 2)
    with pytest.raises(ValueError, match="block_costs has 3 entries; the tree needs one per location, 2"):
        tree.budget([1, 2, 3], [1, 2, 3])
    with pytest.raises(ValueError, match="head_costs has 2 entries; the tree needs one per task, 3"):
        tree.budget([1, 2], [1, 2])


@pytest.fixture(scope="module")
def resnet50_blocks() -> list[int]:
    network: Any = timm.create_model("resnet50", pretrained=False)
    stem = count_params(network.conv1) + count_params(network.bn1)
    layers = [count_params(layer) for layer in (network.layer1, network.layer2, network.layer3, network.layer4)]
    return [stem + layers[0], *layers[1:]]


@pytest.mark.parametrize(
    ("groups", "parameters"),
    [
        ([[0, 0, 0]] * 4, 92_740_694),
        ([[0, 0, 0]] * 3 + [[0, 0, 1]], 107_705_430),
        ([[0, 0, 0]] * 2 + [[0, 0, 1]] * 2, 114_803_798),
        ([[0, 0, 0]] + [[0, 1, 0]] * 3, 116_023_382),
        ([[0, 1, 2]] * 4, 3 * 23_508_032 + 69_232_662),
    ],
)
def test_budgets_of_the_papers_cityscapes_trees(
    groups: list[list[int]], parameters: int, resnet50_blocks: list[int]
) -> None:
    assert resnet50_blocks == [225_344, 1_219_584, 7_098_368, 14_964_736]
    assert BranchTree(groups).budget(resnet50_blocks, list(PSP_HEADS.values())) == parameters


def test_text_draws_one_line_per_branch() -> None:
    tree = BranchTree([[0, 0, 0], [0, 0, 1], [0, 1, 2]])
    assert tree.text(["semseg", "depth", "normals"]).splitlines() == [
        "images",
        "└─ location 1: semseg, depth, normals",
        "   ├─ location 2: semseg, depth",
        "   │  ├─ location 3: semseg",
        "   │  └─ location 3: depth",
        "   └─ location 2: normals",
        "      └─ location 3: normals",
    ]


@pytest.mark.parametrize("tree", RANDOM_TREES[:10])
def test_text_names_every_branch_once(tree: BranchTree) -> None:
    assert len(tree.text([str(t) for t in range(tree.num_tasks)]).splitlines()) == 1 + sum(tree.branches)


def test_text_needs_one_name_per_task() -> None:
    with pytest.raises(ValueError, match="2 task names for a tree of 3 tasks"):
        BranchTree.shared(3, 1).text(["a", "b"])
