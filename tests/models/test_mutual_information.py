"""Mutual information between expert and data set, and the penalty whose gradient it has."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import Tensor

from models.mutual_information import mutual_information, mutual_information_loss

SHAPES = [(2, 3), (3, 12), (5, 4), (1, 6)]
shapes = pytest.mark.parametrize(("datasets", "experts"), SHAPES)


def random_probs(datasets: int, experts: int, seed: int = 0) -> Tensor:
    """P(i|j), rows that add to 1."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(datasets, experts, generator=draw, dtype=torch.float64).mul(2).softmax(1)


@shapes
@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_knowing_the_data_set_takes_from_the_entropy(datasets: int, experts: int, seed: int) -> None:
    """H(E) - H(E|D), each of scipy's entropies, with P(j) = 1/M."""
    probs = random_probs(datasets, experts, seed)
    expected = entropy(probs.mean(0).numpy()) - np.mean([entropy(row) for row in probs.numpy()])
    assert mutual_information(probs).item() == pytest.approx(expected, abs=1e-12)


def test_its_bounds() -> None:
    assert mutual_information(torch.full((3, 4), 0.25)).item() == 0
    apart = torch.eye(3, dtype=torch.float64)
    assert mutual_information(apart).item() == pytest.approx(np.log(3))


@shapes
@pytest.mark.parametrize("seed", range(3))
def test_the_penalties_gradient_is_that_of_the_information(datasets: int, experts: int, seed: int) -> None:
    """Where B = P (Eq. 4): autograd through -I is the oracle, over probabilities as a softmax gives them."""
    scores = random_probs(datasets, experts, seed).log().requires_grad_()
    (expected,) = torch.autograd.grad(-mutual_information(scores.softmax(1)), scores)
    probs = scores.softmax(1)
    penalty = torch.stack([mutual_information_loss(row, probs, place) for place, row in enumerate(probs)]).sum()
    (found,) = torch.autograd.grad(penalty, scores)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
    assert penalty.item() == pytest.approx(-mutual_information(probs).item(), abs=1e-12)


def test_by_plain_probabilities_too() -> None:
    """Without the softmax the two gradients are the same as well: what I has more, 1/M - 1/M, is 0."""
    probs = random_probs(3, 5).requires_grad_()
    (expected,) = torch.autograd.grad(-mutual_information(probs), probs)
    found = [
        torch.autograd.grad(mutual_information_loss(probs[place], probs, place), probs)[0][place] for place in range(3)
    ]
    torch.testing.assert_close(torch.stack(found), expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("place", range(3))
def test_equal_estimates_give_nothing(place: int) -> None:
    probs = random_probs(3, 5).float().requires_grad_()
    penalty = mutual_information_loss(probs[place], torch.full((3, 5), 0.2), place)
    penalty.backward()
    assert abs(penalty.item()) < 1e-7
    assert probs.grad is not None
    assert probs.grad.abs().max() < 1e-7


def test_one_data_set_gives_nothing() -> None:
    probs = random_probs(1, 5).float().requires_grad_()
    penalty = mutual_information_loss(probs[0], random_probs(1, 5, seed=1).float(), 0)
    penalty.backward()
    assert penalty.item() == 0
    assert probs.grad is not None
    assert not probs.grad.any()


def test_an_expert_that_nobody_uses() -> None:
    """log 0 is bounded: no infinity, no gradient that pushes it either way."""
    buffer = torch.tensor([[0.0, 0.4, 0.6], [0.0, 0.9, 0.1]])
    probs = torch.tensor([0.0, 0.5, 0.5], requires_grad=True)
    penalty = mutual_information_loss(probs, buffer, 0)
    penalty.backward()
    assert penalty.isfinite()
    assert probs.grad is not None
    assert probs.grad[0] == 0
    assert mutual_information(buffer).isfinite()


def test_estimates_take_no_gradient() -> None:
    buffer = random_probs(3, 5).requires_grad_()
    assert not mutual_information_loss(random_probs(3, 5, seed=1)[0], buffer, 0).requires_grad
