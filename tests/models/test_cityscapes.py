"""The branched paper's Cityscapes networks: three tasks, ResNet-50, pyramid pooling heads (Tables 1 and 2)."""

import pytest
import torch

from models.accounting import count_params
from models.branch_tree import BranchTree
from models.sharing.branched import BranchedModel, block_costs
from models.spec import BackboneSpec, Column, ModelSpec, TaskSpec

CLASSES = tuple(f"class {number}" for number in range(19))
TASKS = (
    ("semantic", "segmentation", Column(layout="mask", classes=CLASSES)),
    ("instance", "offsets", Column(layout="instances")),
    ("disparity", "depth", Column(layout="field")),
)
SHARED, LAST = (0, 0, 0), (0, 0, 1)
# Which task leaves changes no size; the paper's increments fix the numbers of branches alone.
PAPER = [
    ((SHARED, SHARED, SHARED, SHARED), 92_740_694, 92),
    ((SHARED, SHARED, SHARED, LAST), 107_705_430, 107),
    ((SHARED, SHARED, LAST, LAST), 114_803_798, 114),
    ((SHARED, LAST, LAST, LAST), 116_023_382, 116),
]


def cityscapes(groups: tuple[tuple[int, ...], ...]) -> ModelSpec:
    tasks = tuple(
        TaskSpec(name=name, kind=kind, dataset="streets", column_name=name, column=column, head="psp", head_width=512)
        for name, kind, column in TASKS
    )
    return ModelSpec(
        strategy="branched",
        backbone=BackboneSpec(name="resnet50", locations=4, size=(64, 64)),
        tasks=tasks,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        groups=groups,
    )


@pytest.fixture(scope="module")
def costs() -> tuple[list[int], list[int]]:
    return block_costs(cityscapes((SHARED,) * 4), "params")


def test_blocks_and_heads_are_the_papers(costs: tuple[list[int], list[int]]) -> None:
    assert costs == ([225_344, 1_219_584, 7_098_368, 14_964_736], [23_083_539, 23_074_818, 23_074_305])


@pytest.mark.parametrize(("groups", "params", "millions"), PAPER)
def test_trees_have_the_papers_sizes(
    groups: tuple[tuple[int, ...], ...], params: int, millions: int, costs: tuple[list[int], list[int]]
) -> None:
    assert BranchTree(groups).budget(*costs) == params
    assert params // 1_000_000 == millions


def test_single_task_networks_are_the_split_tree(costs: tuple[list[int], list[int]]) -> None:
    assert BranchTree.split(3, 4).budget(*costs) == 3 * 23_508_032 + sum(costs[1]) == 139_756_758


def test_a_network_that_is_built_has_the_size_of_its_tree() -> None:
    model = BranchedModel(cityscapes(PAPER[2][0]))
    assert count_params(model) == PAPER[2][1]
    with torch.no_grad():
        outputs = model(torch.zeros(2, 3, 64, 64))
    assert [outputs[name].shape for name, _, _ in TASKS] == [(2, 19, 64, 64), (2, 2, 64, 64), (2, 1, 64, 64)]
