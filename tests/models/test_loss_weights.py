"""From several losses to one objective."""

from collections.abc import Sequence

import pytest
import torch

from models.loss_weights import LOSS_WEIGHTS, UncertaintyWeights
from models.tasks import TASKS, Task
from tests.models.task_cases import spec


def tasks(weights: Sequence[float] = (1, 1, 1)) -> list[Task]:
    kinds = ("classification", "segmentation", "depth")
    specs = [spec(kind, name=kind, weight=weight) for kind, weight in zip(kinds, weights, strict=True)]
    return [TASKS[one.kind](one) for one in specs]


@pytest.mark.parametrize("name", list(LOSS_WEIGHTS))
def test_at_the_start_the_objective_is_the_weighted_sum(name: str) -> None:
    objective = LOSS_WEIGHTS[name](tasks((1, 2, 4)))
    assert objective(torch.tensor([3.0, 5.0, 7.0]), (0, 1, 2)) == 3 + 10 + 28
    assert objective(torch.tensor([7.0, 3.0]), (2, 0)) == 28 + 3
    assert objective.factors().tolist() == [1, 2, 4]


@pytest.mark.parametrize("name", list(LOSS_WEIGHTS))
def test_each_loss_is_multiplied_with_its_factor(name: str) -> None:
    objective = LOSS_WEIGHTS[name](tasks((1, 2, 4)))
    for parameter in objective.parameters():
        torch.nn.init.constant_(parameter, 0.7)
    losses = torch.tensor([3.0, 5.0, 7.0], requires_grad=True)
    objective(losses, (0, 1, 2)).backward()
    assert losses.grad is not None
    torch.testing.assert_close(losses.grad, objective.factors().detach())


def test_learned_scales_settle_where_the_likelihood_is_greatest() -> None:
    """Of a Laplace density with mean absolute error e the best scale is e; a log loss of l wants sigma^2 = 2 l."""
    objective, losses = UncertaintyWeights(tasks()), torch.tensor([0.5, 2.0, 3.0])
    optimiser = torch.optim.Adam(objective.parameters(), lr=0.05)
    for _ in range(800):
        optimiser.zero_grad()
        objective(losses, (0, 1, 2)).backward()
        optimiser.step()
    torch.testing.assert_close(1 / objective.factors().detach(), torch.tensor([1.0, 4.0, 3.0]), rtol=1e-3, atol=1e-3)


def test_a_task_without_data_in_a_step_is_left_alone() -> None:
    objective = UncertaintyWeights(tasks())
    objective(torch.tensor([3.0]), (1,)).backward()
    assert [parameter.grad is None for parameter in objective.log_scales] == [True, False, True]
