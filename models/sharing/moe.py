"""One backbone whose MLPs are mixtures of experts, and per data set routers that choose among them (MTHL, 2023).

D locations, M data sets, L layers with experts, E experts, K experts per token, B batch, C channels, H W height and
width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import torch
import torch.distributed as dist
from timm.layers import Mlp
from torch import Tensor, nn

from models.accounting import count_params
from models.backbone import Block, build_blocks, feature_shapes
from models.expert_placement import place_experts
from models.expert_weights import below, take_experts, upcycle
from models.experts import MoEMlp, Router
from models.moe_settings import read_moe_settings
from models.mutual_information import mutual_information_loss
from models.sharing.base import SharedModel
from models.spec import ModelSpec, Route

__all__ = ["MoEMlp", "MoeModel", "Router", "mutual_information_loss"]


class MoeModel(SharedModel):
    """A backbone with experts, and for each data set a router in every layer of experts and its tasks' heads (Sec. 3).

    Its settings are `models.moe_settings.MoeSettings`, its routes those of the spec, or all experts for every data set.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.settings = read_moe_settings(spec.settings)
        self.datasets = tuple(dict.fromkeys(task.dataset for task in spec.tasks))
        blocks = build_blocks(spec.backbone)
        self.shapes = feature_shapes(blocks, spec.backbone.size)
        self.blocks = nn.ModuleList(blocks)
        placed = place_experts(self.settings.placement, _stages(blocks), spec.backbone.name)
        every = (tuple(range(self.settings.experts)),) * len(placed)
        given = {route.dataset: route for route in spec.routes}
        self.routes = {
            name: given.get(name, Route(dataset=name, top_k=self.settings.top_k, experts=every))
            for name in self.datasets
        }
        self.layers: dict[str, MoEMlp] = {}
        for name, (location, path) in _paths(blocks, placed).items():
            self.layers[name] = self._mixture(blocks[location].get_submodule(path), len(self.layers))
            blocks[location].set_submodule(path, self.layers[name])
        # Up to the first layer of experts all data sets are treated alike.
        with_experts = [d for d, block in enumerate(blocks) if any(isinstance(m, MoEMlp) for m in block.modules())]
        self.first = min(with_experts, default=len(blocks))
        self.heads = nn.ModuleList(self.build_head(name, self.shapes) for name in spec.task_names)
        if self.settings.learns == "own":
            self._freeze()

    def _mixture(self, mlp: nn.Module, layer: int) -> MoEMlp:
        assert isinstance(mlp, Mlp)
        assert isinstance(mlp.fc1, nn.Linear)
        if not (isinstance(mlp.act, nn.GELU) and mlp.act.approximate == "none" and isinstance(mlp.norm, nn.Identity)):
            raise ValueError(
                f"backbone.name {self.spec.backbone.name}: experts have GELU and no normalisation, its MLPs have"
                f" {mlp.act} and {mlp.norm}; take another backbone, or another placement"
            )
        settings = self.settings
        mixture = MoEMlp(
            mlp.fc1.in_features,
            settings.hidden or mlp.fc1.out_features // settings.top_k,
            {name: (route.experts[layer], route.top_k) for name, route in self.routes.items()},
            bias=settings.expert_bias,
            router_width=settings.router_width,
            remembered=settings.remembered,
            adapter=settings.adapter,
        )
        if settings.upcycled:
            upcycle(mixture, mlp.state_dict())
        return mixture

    def _freeze(self) -> None:
        """Leave learning only what belongs to the data sets alone."""
        self.blocks.requires_grad_(False)
        for place, layer in enumerate(self.layers.values()):
            layer.routers.requires_grad_(True)
            layer.adapter.requires_grad_(True)
            for route in self.routes.values():
                for number in route.own[place] if route.own else ():
                    layer.expert(number).requires_grad_(True)

    def paths(self, images: Tensor, names: Sequence[str]) -> dict[str, list[Tensor]]:
        """Run what comes before the experts once, then the rest once for every data set among the tasks."""
        dataset_of = {task.name: task.dataset for task in self.spec.tasks}
        state, shared = self._run(images, range(self.first))
        paths = {}
        for dataset, group in groupby(sorted(names, key=dataset_of.__getitem__), key=dataset_of.__getitem__):
            for layer in self.layers.values():
                layer.dataset = dataset
            _, own = self._run(state, range(self.first, len(self.blocks)))
            paths |= {name: [*shared, *own] for name in group}
        return paths

    def _run(self, state: Tensor, locations: range) -> tuple[Tensor, list[Tensor]]:
        maps = []
        for location in locations:
            block = self.blocks[location]
            assert isinstance(block, Block)
            state = block(state)
            maps.append(block.as_map(state))
        return state, maps

    def penalty(self, tasks: Sequence[str]) -> Tensor:
        """The mean over layers of the mutual information penalty, for a batch of one data set (Eq. 5)."""
        (dataset,) = {task.dataset for task in self.spec.tasks if task.name in tasks}
        if not self.layers:
            return super().penalty(tasks)
        return torch.stack([layer.penalty(dataset) for layer in self.layers.values()]).mean()

    def finish_step(self) -> None:
        """Take what all ranks' batches of a step gave the experts into the estimates, by one sum over ranks."""
        if not self.layers:
            return
        tallies = [layer.tally_ME for layer in self.layers.values()]
        together = torch.cat([tally.flatten() for tally in tallies])
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(together)
        parts = together.split([tally.numel() for tally in tallies])
        for layer, part in zip(self.layers.values(), parts, strict=True):
            layer.update(part.view_as(layer.tally_ME), self.settings.momentum)

    def trained_params(self) -> int:
        """The parameters that learn, heads not counted (Tab. 3, Train. Par.)."""
        return sum(weight.numel() for weight in self.blocks.parameters() if weight.requires_grad)

    def backbone_params(self) -> int:
        """The parameters of backbone, experts and routers, heads not counted (Tab. 1 and 3)."""
        return count_params(self.blocks)

    def start_from(self, members: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take weights by name from one network: "dense", a tree of one branch; "moe", another of this kind; "network",
        one of this kind with its heads too, whose tasks are the first of this network's.

        Experts come by number, routers and estimates for the data sets that both know; what the other lacks stays as it
        is. An MLP of the other becomes experts where this network is `upcycled`.
        """
        ((kind, state),) = members.items()
        self._take(_without_branches(state) if kind == "dense" else below(state, "blocks."), {})
        for place in range(len(self.heads) if kind == "network" else 0):
            if head := below(state, f"heads.{place}."):
                self.heads[place].load_state_dict(head)

    def _take(self, blocks: Mapping[str, Tensor], routes: Mapping[str, Route]) -> None:
        """Take a network's blocks; `routes` are those of its data sets that don't have all its experts."""
        layers = {f"{path}.": layer for path, layer in self.blocks.named_modules() if isinstance(layer, MoEMlp)}
        inside = tuple(layers)
        for place, (prefix, layer) in enumerate(layers.items()):
            other = below(blocks, prefix)
            if "fc1.weight" not in other:
                take_experts(layer, other, {name: route.experts[place] for name, route in routes.items()})
            elif self.settings.upcycled:
                upcycle(layer, other)
        rest = {name: tensor for name, tensor in blocks.items() if not name.startswith(inside)}
        mine = {name: tensor for name, tensor in self.blocks.state_dict().items() if not name.startswith(inside)}
        alike = {name for name in rest if name in mine and rest[name].shape == mine[name].shape}
        if wrong := sorted((rest.keys() | mine.keys()) - alike):
            raise ValueError(
                f"the network to start from has another backbone, or other experts: {', '.join(wrong[:3])}"
            )
        self.blocks.load_state_dict(rest, strict=False)

    def only(self, task: str) -> "MoeModel":
        """Cut out one task's network, with the experts that its data set's routers may choose."""
        spec = self.spec.tasks[self.spec.task_names.index(task)]
        settings = dict(self.spec.settings) | {"remembered": (), "learns": "all", "upcycled": False}
        plain = MoeModel(
            replace(
                self.spec,
                backbone=replace(self.spec.backbone, pretrained=False),
                tasks=(spec,),
                routes=(self.routes[spec.dataset],),
                settings=tuple(sorted(settings.items())),
            )
        )
        plain._take(below(self.state_dict(), "blocks."), self.routes)
        plain.heads[0].load_state_dict(self.heads[self.spec.tasks.index(spec)].state_dict())
        return plain.to(self.mean.device).train(self.training)


def _stages(blocks: Sequence[Block]) -> list[list[str]]:
    """The names of the MLPs in the timm network, by the stage that its names count: "layers.2", "stages.2"."""
    names = [
        block.origins[path]
        for block in blocks
        for path, module in block.named_modules()
        if isinstance(module, Mlp) and path in block.origins
    ]
    return [list(group) for _, group in groupby(names, key=lambda name: name.split(".")[:2])]


def _paths(blocks: Sequence[Block], names: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Map names in the timm network to where those layers are: location and path in its block."""
    found = {name: (d, path) for d, block in enumerate(blocks) for path, name in block.origins.items()}
    return {name: found[name] for name in names}


def _without_branches(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The blocks of a branched network with one branch, by the names that they have without it."""
    found = {}
    for name, tensor in below(state, "blocks.").items():
        location, branch, path = name.split(".", 2)
        assert branch == "0", "a network to start from has one branch"
        found[f"{location}.{path}"] = tensor
    return found
