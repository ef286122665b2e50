"""A branched network is the tree that it was built from: what it costs, what it shares, what each task sees."""

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch

from models.accounting import count_flops, count_params
from models.branch_tree import BranchTree
from models.sharing.branched import BranchedModel, block_costs
from models.spec import BackboneSpec, ModelSpec
from models.tree_search import enumerate_trees
from tests.models.task_cases import spec as task_spec

SIZE = (64, 64)
KINDS = ("classification", "depth", "segmentation", "keypoints")
SMALL = ["test_resnet", "test_byobnet", "test_vit"]
LARGE = [
    *("resnet18", "resnet34", "resnet50", "densenet121", "mobilenetv3_large_100", "convnext_tiny"),
    *("swin_tiny_patch4_window7_224", "davit_tiny", "vit_small_patch16_224"),
]


def spec(groups: tuple[tuple[int, ...], ...], backbone: str = "test_resnet", size: tuple[int, int] = SIZE) -> ModelSpec:
    tasks = tuple(task_spec(kind, name=f"my_{kind}", head_width=8) for kind in KINDS[: len(groups[0])])
    return ModelSpec(
        strategy="branched",
        backbone=BackboneSpec(name=backbone, locations=len(groups), size=size),
        tasks=tasks,
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
        groups=groups,
    )


def build(groups: tuple[tuple[int, ...], ...], backbone: str = "test_resnet", seed: int = 0) -> BranchedModel:
    torch.manual_seed(seed)
    return BranchedModel(spec(groups, backbone))


def shaken(model: BranchedModel) -> BranchedModel:
    """Weights and running statistics that differ between branches, as after training."""
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(0.1 * torch.rand_like(value))
    return model.eval()


TREES = random.Random(0).sample([tree.groups for tree in enumerate_trees(3, 4)], 6)
TREES += [BranchTree.shared(3, 4).groups, BranchTree.split(4, 4).groups, BranchTree.shared(1, 2).groups]
IMAGES = torch.randint(0, 256, (3, 3, *SIZE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("backbone", SMALL)
@pytest.mark.parametrize("groups", TREES)
def test_parameters_are_the_trees_budget(groups: tuple[tuple[int, ...], ...], backbone: str) -> None:
    model = build(groups, backbone)
    assert count_params(model) == model.tree.budget(*block_costs(model.spec, "params"))


@pytest.mark.parametrize("backbone", SMALL)
@pytest.mark.parametrize("groups", TREES[-4:])
def test_flops_are_the_trees_budget(groups: tuple[tuple[int, ...], ...], backbone: str) -> None:
    model = build(groups, backbone)
    expected = model.tree.budget(*block_costs(model.spec, "flops"))
    assert count_flops(model, torch.zeros(1, 3, *SIZE)) == expected > 0


@pytest.mark.parametrize("backbone", LARGE)
def test_the_backbones_of_the_field_make_any_tree(backbone: str) -> None:
    """One tree that leaves at every depth: its sizes, each shared block once, each task alone as within the whole."""
    model = build(((0, 0, 0), (0, 0, 1), (0, 0, 1), (0, 2, 1)), backbone).eval()
    assert count_params(model) == model.tree.budget(*block_costs(model.spec, "params"))
    assert count_flops(model, torch.zeros(1, 3, *SIZE)) == model.tree.budget(*block_costs(model.spec, "flops"))
    with torch.no_grad():
        whole = model(IMAGES[:1])
        alone = model.only("my_depth")(IMAGES[:1])
    assert torch.equal(alone["my_depth"], whole["my_depth"])
    assert whole["my_segmentation"].shape[-2:] == SIZE


@pytest.mark.parametrize("groups", TREES)
def test_a_shared_block_runs_once(groups: tuple[tuple[int, ...], ...]) -> None:
    model, calls = build(groups).eval(), Counter[str]()
    for location, branches in enumerate(model.blocks):
        for branch, block in enumerate(branches.children()):
            block.register_forward_hook(lambda *_, key=f"{location}.{branch}": calls.update([key]))
    model(IMAGES)
    assert calls == {f"{d}.{b}": 1 for d, count in enumerate(model.tree.branches) for b in range(count)}
    calls.clear()
    model(IMAGES, model.spec.task_names[-1:])
    assert sorted(calls) == [f"{d}.{row[-1]}" for d, row in enumerate(model.tree.groups)], "only what the task needs"


@pytest.mark.parametrize("groups", TREES)
def test_a_tasks_gradient_reaches_its_own_branches_alone(groups: tuple[tuple[int, ...], ...]) -> None:
    model = build(groups).train()
    for index, name in enumerate(model.spec.task_names):
        model.zero_grad(set_to_none=True)
        model(IMAGES)[name].square().sum().backward()
        own = tuple(f"blocks.{d}.{row[index]}." for d, row in enumerate(model.tree.groups))
        for key, parameter in model.named_parameters():
            assert (parameter.grad is not None) == key.startswith((*own, f"heads.{index}.")), key


@pytest.mark.parametrize("backbone", SMALL)
@pytest.mark.parametrize("groups", TREES[::2])
def test_only_a_task_predicts_as_the_whole(groups: tuple[tuple[int, ...], ...], backbone: str) -> None:
    model = shaken(build(groups, backbone))
    with torch.no_grad():
        whole = model(IMAGES)
        for name in model.spec.task_names:
            cut = model.only(name)
            assert torch.equal(cut(IMAGES)[name], whole[name])
            assert torch.equal(model(IMAGES, (name,))[name], whole[name])
            assert cut.spec.task_names == (name,)
            assert count_params(cut) < count_params(model) or len(whole) == 1
            for own, all_of in zip(cut.features(IMAGES, name), model.features(IMAGES, name), strict=True):
                assert torch.equal(own, all_of)


def test_cutting_out_copies() -> None:
    model = build(TREES[0])
    for parameter in model.only("my_depth").parameters():
        parameter.data.zero_()
    assert any(parameter.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize("groups", TREES)
def test_all_branches_start_from_the_same_weights(groups: tuple[tuple[int, ...], ...]) -> None:
    """So the choice of tree changes no first output of any task."""
    model, split = build(groups).eval(), build(BranchTree.split(len(groups[0]), len(groups)).groups).eval()
    with torch.no_grad():
        found, expected = model(IMAGES), split(IMAGES)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("groups", TREES[:6])
def test_branches_start_from_the_mean_of_their_members(groups: tuple[tuple[int, ...], ...]) -> None:
    model, names = build(groups), [f"my_{kind}" for kind in KINDS[: len(groups[0])]]
    alone = [shaken(build(BranchTree.shared(len(names), 4).groups, seed=s).only(name)) for s, name in enumerate(names)]
    model.start_from({name: single.state_dict() for name, single in zip(names, alone, strict=True)})
    for location, row in enumerate(groups):
        for branch, block in enumerate(model.blocks[location].children()):
            members = [alone[task].blocks[location].get_submodule("0") for task, own in enumerate(row) if own == branch]
            for key, value in block.state_dict().items():
                if value.is_floating_point():
                    wanted = sum(member.state_dict()[key] for member in members) / len(members)
                    torch.testing.assert_close(value, wanted)
    model.eval()
    split = build(BranchTree.split(len(names), 4).groups).eval()
    split.start_from({name: single.state_dict() for name, single in zip(names, alone, strict=True)})
    with torch.no_grad():
        for name, single in zip(names, alone, strict=True):
            assert torch.equal(split(IMAGES)[name], single(IMAGES)[name]), "alone in all its branches"


def test_adding_a_task_leaves_the_others_first_weights() -> None:
    few, many = (build(BranchTree.shared(count, 4).groups).state_dict() for count in (2, 4))
    assert few.keys() < many.keys()
    assert all(torch.equal(value, many[name]) for name, value in few.items())
    other = build(BranchTree.shared(2, 4).groups, seed=1).state_dict()
    assert not torch.equal(few["heads.1.project.weight"], other["heads.1.project.weight"])


def test_heads_of_one_kind_start_differently() -> None:
    tasks = tuple(task_spec("depth", name=name, head_width=8) for name in ("near", "far"))
    model = BranchedModel(replace(spec(BranchTree.shared(2, 4).groups), tasks=tasks))
    near, far = (head.state_dict()["project.weight"] for head in model.heads)
    assert not torch.equal(near, far)


def test_bytes_and_floats_are_the_same_images() -> None:
    model = build(TREES[0]).eval()
    with torch.no_grad():
        as_bytes, as_floats = model(IMAGES), model(IMAGES.float() / 255)
    for name, value in as_bytes.items():
        torch.testing.assert_close(as_floats[name], value)
    normal = model.normalise(IMAGES)
    expected = (IMAGES.float() / 255 - torch.tensor(model.spec.mean)[:, None, None]) / torch.tensor(model.spec.std)[
        :, None, None
    ]
    torch.testing.assert_close(normal, expected)
    assert float(model.penalty(["a"])) == 0


@pytest.mark.parametrize("name", ["type", "keys", "items", "train", "a.b", "forward", "größe", "two words"])
def test_any_task_name_will_do(name: str) -> None:
    """Users name tasks after their columns; those are also names of torch's own methods."""
    tasks = (task_spec("depth", name=name, head_width=8),)
    model = BranchedModel(replace(spec(BranchTree.shared(1, 4).groups), tasks=tasks)).eval()
    assert list(model(IMAGES)) == [name]
    assert model.only(name).spec.task_names == (name,)


def test_a_tree_for_other_tasks_is_refused() -> None:
    tree = BranchTree.shared(3, 4).groups
    with pytest.raises(ValueError, match="3 tasks and 4 locations, the network has 2 and 4"):
        BranchedModel(replace(spec(tree), tasks=spec(tree).tasks[:2]))
