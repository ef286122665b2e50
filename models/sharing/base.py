"""The contract of a sharing strategy.

Shapes: B batch, H W height and width.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from zlib import crc32

import torch
from torch import Tensor, nn

from models.accounting import count_params
from models.spec import ModelSpec
from models.tasks import TASKS, Task


class SharedModel(nn.Module, ABC):
    """A network that solves several tasks and shares some of its weights among them.

    Images come as uint8 or as floats in 0..1, [B, 3, H, W]; normalisation is part of the network. `heads` are in the
    order of the tasks; by number, since a task may be named as a method of torch's, "type" or "train".
    """

    heads: nn.ModuleList
    mean: Tensor
    std: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.tasks: dict[str, Task] = {task.name: TASKS[task.kind](task) for task in spec.tasks}
        self.register_buffer("mean", torch.tensor(spec.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(3, 1, 1), persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """Map images uint8 or 0..1 to zero mean and unit variance per channel."""
        if images.dtype == torch.uint8:  # a fresh copy, which is ours to write in
            return images.to(self.mean.dtype).sub_(255 * self.mean).div_(255 * self.std)
        return (images - self.mean) / self.std

    def build_head(self, task: str, shapes: Sequence[tuple[int, int, int]]) -> nn.Module:
        """Map a task and the (C, H, W) of its D features to its head, seeded by the task's name.

        So adding a task leaves the others' first weights as they were, and strategies start from the same heads.
        """
        reductions = [max(1, round(self.spec.backbone.size[0] / shape[1])) for shape in shapes]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch.initial_seed() ^ crc32(task.encode()))
            return self.tasks[task].head([shape[0] for shape in shapes], reductions)

    @abstractmethod
    def paths(self, images: Tensor, names: Sequence[str]) -> dict[str, list[Tensor]]:
        """Map normalised images to each named task's features at the end of each of the D locations."""

    def forward(self, images: Tensor, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Map images to the raw head output of each named task (all by default); shared parts run once."""
        names = self.spec.task_names if tasks is None else tuple(tasks)
        paths = self.paths(self.normalise(images), names)
        size = (images.shape[-2], images.shape[-1])
        return {name: self.heads[self.spec.task_names.index(name)](paths[name], size) for name in names}

    def features(self, images: Tensor, task: str) -> list[Tensor]:
        """Map images to the features of one task at the end of each of the D locations."""
        return self.paths(self.normalise(images), (task,))[task]

    def num_params(self) -> int:
        """The parameters that predicting all tasks needs."""
        return count_params(self)

    def penalty(self, tasks: Sequence[str]) -> Tensor:
        """The strategy's own term of the objective for a batch of these tasks, before λ; zero where there is none."""
        return torch.zeros((), device=self.mean.device)

    def finish_step(self) -> None:
        """Take in what the strategy gathered from the batches of a step, over all ranks, once the step is taken."""

    def no_weight_decay(self) -> set[str]:
        """Parameters that no optimiser may pull towards zero (timm's name for it); vectors never are."""
        return set()

    def lr_scale(self, parameter: str) -> float:
        """What the learning rate of a parameter is multiplied by."""
        return 1.0

    @abstractmethod
    def start_from(self, members: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take first weights from the states of branched networks for one task or of one branch, by name."""

    def kept(self) -> "SharedModel":
        """The network that a bundle keeps: this one, or what of it predicts."""
        return self

    @abstractmethod
    def only(self, task: str) -> "SharedModel":
        """Cut out the network of one task, with the weights that it uses and no others."""
