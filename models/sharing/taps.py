"""Task adaptive parameter sharing: one base, and per task the layers its gates open (TAPS, Wallingford et al. 2022).

D locations, L gated layers, B batch, C channels, H W height and width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from models.accounting import count_params
from models.backbone import Block, build_blocks, feature_shapes
from models.gating import TaskWeights, gated_layers, is_norm
from models.sharing.base import SharedModel
from models.sharing.branched import BranchedModel
from models.spec import ModelSpec, Setting

# A patch embedding is the code of the image that all layers rest on; the paper gates a ViT's attention and MLPs.
DEFAULTS: dict[str, Setting] = {
    "gated": ("*", "!*patch_embed*"),
    "joint": False,
    "score": 0.15,
    "score_lr": 1.0,
    "threshold": 0.1,
    "weight_decay": 0.0,
}


class TapsModel(SharedModel):
    """A base network and, for each task, gated layers, normalisation layers and a head of its own (Eq. 1).

    Settings: `gated`, glob patterns over the backbone's layer names; `threshold` τ and the first `score` of every
    gate; `score_lr`, the scores' learning rate as a multiple; `weight_decay` of δ; `joint`: the base trains with the
    tasks (Eq. 4), else it never receives a gradient (Eq. 3). Tokens and position tables are the base's.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        settings = DEFAULTS | dict(spec.settings)
        if unknown := settings.keys() - DEFAULTS.keys():
            raise ValueError(f"TAPS has no setting {', '.join(sorted(unknown))}; it has {', '.join(DEFAULTS)}")
        blocks = build_blocks(spec.backbone)
        self.shapes = feature_shapes(blocks, spec.backbone.size)
        self.base = nn.ModuleList(blocks)
        names = {f"{d}.{path}": name for d, block in enumerate(blocks) for path, name in block.origins.items()}
        patterns, self.score_lr = settings["gated"], float(settings["score_lr"])  # pyright: ignore[reportArgumentType]
        assert isinstance(patterns, tuple)
        self.layers = gated_layers(self.base, patterns, names)
        self.joint = bool(settings["joint"])
        self.own = nn.ModuleList(
            TaskWeights(
                self.base,
                self.layers,
                threshold=float(settings["threshold"]),  # pyright: ignore[reportArgumentType]
                score=float(settings["score"]),  # pyright: ignore[reportArgumentType]
                frozen=not self.joint,
                weight_decay=float(settings["weight_decay"]),  # pyright: ignore[reportArgumentType]
            )
            for _ in spec.tasks
        )
        self.base.requires_grad_(self.joint)
        for module in self.base.modules():
            if is_norm(module):
                module.requires_grad_(False)  # every task has its own
        self.heads = nn.ModuleList(self.build_head(name, self.shapes) for name in spec.task_names)

    def of(self, task: str | None = None) -> TaskWeights:
        """A task's own weights; where there is one task, it need not be named."""
        if task is None and len(self.spec.tasks) != 1:
            raise ValueError(f"name one of the tasks {', '.join(self.spec.task_names)}")
        own = self.own[0 if task is None else self.spec.task_names.index(task)]
        assert isinstance(own, TaskWeights)
        return own

    def gates(self, task: str | None = None) -> dict[str, float]:
        """Map a task to the score of each gated layer, by the layer's name."""
        return dict(zip((layer.name for layer in self.layers), self.of(task).scores.tolist(), strict=True))

    def active_layers(self, task: str | None = None) -> list[str]:
        """Map a task to the names of the layers that are its own: those whose score reaches the threshold (Eq. 2)."""
        return [layer.name for layer, is_open in zip(self.layers, self.of(task).gates(), strict=True) if is_open]

    def num_params(self) -> int:
        """Base, and per task its active layers, normalisation layers and head: what a bundle holds."""
        own = sum(
            sum(
                w.numel()
                for layer, is_open in zip(part.layers, part.gates(), strict=True)
                if is_open
                for w in (self.base.get_parameter(name) for name in layer.parameters)
            )
            + count_params(part.norms)
            for part in map(self.of, self.spec.task_names)
        )
        return count_params(self.base) + own + count_params(self.heads)

    def penalty(self, tasks: Sequence[str]) -> Tensor:
        """The sum over tasks of the mean |score| (second term of Eq. 3 and 4, without λ)."""
        return torch.stack([self.of(task).scores.abs().mean() for task in tasks]).sum()

    def no_weight_decay(self) -> set[str]:
        """δ decays by its own setting; an optimiser would pull a frozen base's effective weights to zero instead."""
        return {name for name, _ in self.named_parameters() if ".weights." in name}

    def lr_scale(self, parameter: str) -> float:
        return self.score_lr if parameter.endswith(".scores") else 1.0

    def paths(self, images: Tensor, names: Sequence[str]) -> dict[str, list[Tensor]]:
        """Run each task's layers in turn; where several agree in all tensors from the image on, once for them all."""
        tensors = {name: self._by_location(name) for name in names}
        paths: dict[str, list[Tensor]] = {name: [] for name in names}
        together = [list(names)]
        states = dict.fromkeys(names, images)
        for location, block in enumerate(self.base):
            assert isinstance(block, Block)
            together = [part for group in together for part in self._agreeing(group, tensors, location)]
            for group in together:
                own = tensors[group[0]][location]
                state = functional_call(block, own, (states[group[0]],), tie_weights=False)
                feature = block.as_map(state)
                for name in group:
                    states[name] = state
                    paths[name].append(feature)
        return paths

    def _by_location(self, task: str) -> list[dict[str, Tensor]]:
        parts: list[dict[str, Tensor]] = [{} for _ in self.base]
        for name, tensor in self.of(task).tensors(self.base).items():
            location, _, path = name.partition(".")
            parts[int(location)][path] = tensor
        return parts

    def _agreeing(
        self, group: list[str], tensors: Mapping[str, Sequence[Mapping[str, Tensor]]], location: int
    ) -> list[list[str]]:
        """Split tasks into those that do the same at a location; in training each has statistics to gather."""
        parts: list[list[str]] = []
        for name in group:
            own = tensors[name][location]
            for part in parts:
                if not self.training and _equal(own, tensors[part[0]][location]):
                    part.append(name)
                    break
            else:
                parts.append([name])
        return parts

    def start_from(self, members: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take the base from the one branch of a branched network, whatever its tasks were; every δ begins at zero."""
        (state,) = members.values()
        for location, block in enumerate(self.base):
            prefix = f"blocks.{location}.0."
            block.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        for own in self.own:
            assert isinstance(own, TaskWeights)
            own.restart(self.base)

    def drop_closed(self) -> None:
        """Hold one copy of what tasks share, as the bundle does: for predicting, not for training on."""
        for own in map(self.of, self.spec.task_names):
            own.drop_closed(self.base)

    def merged(self, task: str | None = None) -> BranchedModel:
        """Map a task to a plain network with its effective weights: no gates, nothing to add, the base's classes."""
        spec = self.spec.tasks[0 if task is None else self.spec.task_names.index(task)]
        own, groups = self.of(task), ((0,),) * len(self.base)
        backbone = replace(self.spec.backbone, pretrained=False)
        plain = BranchedModel(
            replace(self.spec, strategy="branched", backbone=backbone, tasks=(spec,), groups=groups, settings=())
        )
        with torch.no_grad():
            state = self.base.state_dict() | own.tensors(self.base)
        plain.blocks.load_state_dict({_branch(name): tensor for name, tensor in state.items()})
        plain.heads[0].load_state_dict(self.heads[self.spec.tasks.index(spec)].state_dict())
        return plain.to(self.mean.device).train(self.training)

    def only(self, task: str) -> BranchedModel:
        return self.merged(task)


def _branch(name: str) -> str:
    """The name of a block's tensor in the only branch of a branched network."""
    location, _, path = name.partition(".")
    return f"{location}.0.{path}"


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two tasks put the same in place; what counts their training batches does not matter."""
    return one.keys() == other.keys() and all(
        torch.equal(tensor, other[name]) for name, tensor in one.items() if not name.endswith("num_batches_tracked")
    )
