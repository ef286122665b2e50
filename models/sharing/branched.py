"""Branched networks: a tree of backbone blocks with the tasks' heads at its leaves (branched paper, Sec. 3.2).

D locations, T tasks, B batch, C channels, H W height and width.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn

from models.accounting import count_flops
from models.backbone import Block, build_blocks, feature_shapes
from models.branch_tree import BranchTree
from models.sharing.base import SharedModel
from models.spec import ModelSpec


class BranchedModel(SharedModel):
    """A network whose tasks share the blocks that `spec.groups` puts them in; each shared block runs once.

    All branches of a location start from the same weights, as they do in the paper where every one starts from the
    pre-trained backbone; the fully split tree is then T single-task networks, the fully shared one hard sharing.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.tree = BranchTree(spec.groups)
        if self.tree.num_tasks != len(spec.tasks) or self.tree.num_locations != spec.backbone.locations:
            raise ValueError(
                f"the tree is for {self.tree.num_tasks} tasks and {self.tree.num_locations} locations,"
                f" the network has {len(spec.tasks)} and {spec.backbone.locations}"
            )
        blocks = build_blocks(spec.backbone)
        self.shapes = feature_shapes(blocks, spec.backbone.size)
        self.blocks = nn.ModuleList(
            nn.ModuleList(block if branch == 0 else deepcopy(block) for branch in range(branches))
            for block, branches in zip(blocks, self.tree.branches, strict=True)
        )
        self.heads = nn.ModuleList(self.build_head(name, self.shapes) for name in spec.task_names)

    def paths(self, images: Tensor, names: Sequence[str]) -> dict[str, list[Tensor]]:
        """Run every branch that a named task needs once, and collect each task's feature maps."""
        index = {name: self.spec.task_names.index(name) for name in names}
        paths: dict[str, list[Tensor]] = {name: [] for name in names}
        states = dict.fromkeys(names, images)
        for location, branches in enumerate(self.blocks):
            groups = self.tree.groups[location]
            done: dict[int, tuple[Tensor, Tensor]] = {}
            for name in names:
                branch = groups[index[name]]
                if branch not in done:
                    block = _block(branches, branch)
                    state = block(states[name])
                    done[branch] = state, block.as_map(state)
                states[name], feature = done[branch]
                paths[name].append(feature)
        return paths

    def start_from(self, members: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Give every branch the mean of its tasks' single-task weights and running statistics, each head its own."""
        states = [members[name] for name in self.spec.task_names]
        for location, branches in enumerate(self.blocks):
            for branch, tasks in enumerate(self.tree.members(location)):
                parts = [_under(states[task], f"blocks.{location}.0.") for task in tasks]
                _block(branches, branch).load_state_dict(
                    {key: _mean([part[key] for part in parts]) for key in parts[0]}
                )
        for head, state in zip(self.heads, states, strict=True):
            head.load_state_dict(_under(state, "heads.0."))

    def only(self, task: str) -> "BranchedModel":
        index = self.spec.task_names.index(task)
        alone = replace(self.spec, tasks=(self.spec.tasks[index],), groups=((0,),) * self.tree.num_locations)
        cut = BranchedModel(replace(alone, backbone=replace(alone.backbone, pretrained=False)))
        for location, branches in enumerate(self.blocks):
            own = self.tree.groups[location][index]
            _block(cut.blocks[location], 0).load_state_dict(_block(branches, own).state_dict())
        cut.heads[0].load_state_dict(self.heads[index].state_dict())
        return cut.train(self.training)


def block_costs(spec: ModelSpec, unit: str) -> tuple[list[int], list[int]]:
    """Map a network's spec to (cost of one branch at each location, cost of each task's head), in "params" or "flops".

    FLOPs are those of one image (two per multiply-add). The branch structure of the spec does not matter.
    """
    model = BranchedModel(replace(spec, groups=BranchTree.shared(len(spec.tasks), spec.backbone.locations).groups))
    blocks, heads = [_block(branches, 0) for branches in model.blocks], list(model.heads)
    if unit == "params":
        return [_params(block) for block in blocks], [_params(head) for head in heads]
    costs, state, features = [], torch.zeros(1, 3, *spec.backbone.size), []
    for block in blocks:
        costs.append(count_flops(block, state))
        with torch.no_grad():
            state = block.eval()(state)
        features.append(block.as_map(state))
    return costs, [count_flops(head, features, spec.backbone.size) for head in heads]


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _mean(values: Sequence[Tensor]) -> Tensor:
    """The mean of weights; of counters, which say how long a network was trained, the first."""
    return torch.stack(list(values)).mean(0) if values[0].is_floating_point() else values[0]


def _params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _block(branches: nn.Module, branch: int) -> Block:
    assert isinstance(branches, nn.ModuleList)
    block = branches[branch]
    assert isinstance(block, Block)
    return block
