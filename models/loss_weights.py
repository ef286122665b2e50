"""Losses of several tasks -> one objective: weights that a person fixed, or that are learned with the network.

Letters: T tasks.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.tasks import Task


class LossWeights(nn.Module, ABC):
    """How the tasks' losses become one number; what it learns is no part of the network and leaves with training."""

    fixed: Tensor

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.register_buffer("fixed", torch.tensor([float(task.spec.weight) for task in tasks]), persistent=False)

    @abstractmethod
    def forward(self, losses: Tensor, tasks: Sequence[int]) -> Tensor:
        """Map the losses of some tasks, and their places among all T, to the objective."""

    @abstractmethod
    def factors(self) -> Tensor:
        """What each of the T losses is multiplied with at present."""


class FixedWeights(LossWeights):
    """sum_t weight_t * loss_t; with all weights 1 the paper's uniform weighing (branched paper, Sec. 2)."""

    def forward(self, losses: Tensor, tasks: Sequence[int]) -> Tensor:
        return (losses * self.fixed[list(tasks)]).sum()

    def factors(self) -> Tensor:
        return self.fixed


class UncertaintyWeights(LossWeights):
    """sum_t weight_t * (exp(-s_t) * loss_t + c_t * s_t) with learned s (Kendall et al. 2018, Eq. 7 and 10).

    A loss that is minus a log probability divides by sigma^2 = exp(s) and pays log sigma, c = 1/2 (Eq. 10). An absolute
    error is the paper's regression with a Laplace density in place of the Gaussian: scale exp(s), c = 1.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__(tasks)
        # One parameter a task: a step without a task's data leaves it and its optimiser state alone.
        self.log_scales = nn.ParameterList(nn.Parameter(torch.zeros(())) for _ in tasks)
        self.costs = [1.0 if task.laplace else 0.5 for task in tasks]

    def forward(self, losses: Tensor, tasks: Sequence[int]) -> Tensor:
        terms = [
            self.fixed[t] * (torch.exp(-self.log_scales[t]) * loss + self.costs[t] * self.log_scales[t])
            for loss, t in zip(losses.unbind(), tasks, strict=True)
        ]
        return torch.stack(terms).sum()

    def factors(self) -> Tensor:
        return self.fixed * torch.exp(-torch.stack(list(self.log_scales)))


LOSS_WEIGHTS: dict[str, type[LossWeights]] = {"fixed": FixedWeights, "uncertainty": UncertaintyWeights}
