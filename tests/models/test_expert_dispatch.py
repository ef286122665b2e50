"""Dispatch: whatever way the tokens take, the mixture and its gradients are those of its definition."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from models import expert_dispatch
from models.accounting import count_flops
from models.expert_dispatch import mix_experts, sort_by_expert

Mix = Callable[..., Tensor]


def grouped(
    x: Tensor, gate: Tensor, choice: Tensor, first: Sequence[Tensor], second: Sequence[Tensor], biases: Sequence = ()
) -> Tensor:
    """What a GPU does, anywhere."""
    return expert_dispatch._grouped(x, gate, sort_by_expert(choice, len(first)), first, second, biases)


WAYS: dict[str, Mix] = {"sliced": mix_experts, "grouped": grouped}
ways = pytest.mark.parametrize("mix", list(WAYS.values()), ids=list(WAYS))
SHAPES = {  # T, E, K
    "some": (23, 6, 3),
    "every expert": (9, 4, 4),
    "one each": (11, 5, 1),
    "one expert": (7, 1, 1),
    "one token": (1, 6, 2),
}
shapes = pytest.mark.parametrize("shape", list(SHAPES.values()), ids=list(SHAPES))
C, H = 16, 24


@dataclass(frozen=True)
class Case:
    """What goes into a mixture, all of it leaves but the choice, and a gradient of what comes out."""

    x: Tensor
    gate: Tensor
    choice: Tensor
    first: list[Tensor]
    second: list[Tensor]
    biases: list[tuple[Tensor, Tensor]]
    grad: Tensor

    @property
    def leaves(self) -> list[Tensor]:
        return [self.x, self.gate, *self.first, *self.second, *(bias for pair in self.biases for bias in pair)]

    def mixed(self, mix: Mix) -> Tensor:
        return mix(self.x, self.gate, self.choice, self.first, self.second, self.biases)

    def gradients(self, mix: Mix) -> tuple[Tensor | None, ...]:
        found = [leaf for leaf in self.leaves if leaf.requires_grad]
        return torch.autograd.grad(self.mixed(mix), found, self.grad, allow_unused=True)


def make(tokens: int, experts: int, top_k: int, *, bias: bool = True, dtype: torch.dtype = torch.float32) -> Case:
    draw = torch.Generator().manual_seed(0)

    def leaf(*size: int) -> Tensor:
        return torch.randn(*size, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()

    choice = torch.rand(tokens, experts, generator=draw).argsort(1)[:, :top_k]
    return Case(
        x=leaf(tokens, C),
        gate=leaf(tokens, top_k),
        choice=choice,
        first=[leaf(H, C) for _ in range(experts)],
        second=[leaf(C, H) for _ in range(experts)],
        biases=[(leaf(H), leaf(C)) for _ in range(experts if bias else 0)],
        grad=leaf(tokens, C).detach(),
    )


def by_token(
    x: Tensor, gate: Tensor, choice: Tensor, first: Sequence[Tensor], second: Sequence[Tensor], biases: Sequence = ()
) -> Tensor:
    """The definition, a token and one of its experts at a time."""
    mixed = []
    for token in range(len(x)):
        total = torch.zeros_like(x[token])
        for place, expert in enumerate(choice[token].tolist()):
            one, two = biases[expert] if biases else (0, 0)
            hidden = F.gelu(first[expert] @ x[token] + one)
            total = total + gate[token, place] * (second[expert] @ hidden + two)
        mixed.append(total)
    return torch.stack(mixed)


def assert_near(found: Tensor | None, expected: Tensor | None, tolerance: float) -> None:
    """Nowhere further apart than a part of the greatest value; where the definition has no gradient, it is zero."""
    assert found is not None
    expected = torch.zeros_like(found) if expected is None else expected
    gap = (found.double() - expected.double()).abs().max()
    assert gap <= tolerance * expected.double().abs().max().clamp(min=1e-30), float(gap)


@pytest.mark.parametrize(
    ("mix", "dtype", "tolerance"),
    [(mix_experts, torch.float32, 1e-5), (mix_experts, torch.float64, 1e-12), (grouped, torch.float32, 1e-5)],
    ids=["sliced 32", "sliced 64", "grouped 32"],  # torch's grouped product has no 64 bits
)
@shapes
@pytest.mark.parametrize("bias", [True, False], ids=["biases", "none"])
def test_the_definition(
    mix: Mix, shape: tuple[int, int, int], bias: bool, dtype: torch.dtype, tolerance: float
) -> None:
    """Values and every gradient."""
    case = make(*shape, bias=bias, dtype=dtype)
    assert_near(case.mixed(mix), case.mixed(by_token), tolerance)
    for found, expected in zip(case.gradients(mix), case.gradients(by_token), strict=True):
        assert_near(found, expected, tolerance)


@ways
@shapes
def test_half_precision(mix: Mix, shape: tuple[int, int, int]) -> None:
    """bfloat16 as it comes from autocast's casts: gradients arrive in the weights' own type, near those of 32 bits."""
    case = make(*shape)
    expected = (case.mixed(by_token), *case.gradients(by_token))

    def cast(
        x: Tensor, gate: Tensor, choice: Tensor, first: list[Tensor], second: list[Tensor], biases: list
    ) -> Tensor:
        if mix is mix_experts:
            with torch.autocast("cpu", torch.bfloat16):
                mixed = mix(x, gate, choice, first, second, biases)
            assert mixed.dtype == torch.bfloat16
            return mixed.float()
        half = [[w.bfloat16() for w in weights] for weights in (first, second)]
        pairs = [(one.bfloat16(), two.bfloat16()) for one, two in biases]
        return mix(x.bfloat16(), gate.bfloat16(), choice, *half, pairs).float()

    for found, wanted in zip((case.mixed(cast), *case.gradients(cast)), expected, strict=True):
        assert found is not None
        assert found.dtype == torch.float32
        assert_near(found, wanted, 0.03)


@pytest.mark.parametrize("bias", [True, False])
def test_finite_differences(bias: bool) -> None:
    case = make(4, 3, 2, bias=bias, dtype=torch.float64)
    first, second = [w[:2, :3] for w in case.first], [w[:3, :2] for w in case.second]
    biases = [(one[:2], two[:3]) for one, two in case.biases]

    def mixed(x: Tensor, gate: Tensor, *flat: Tensor) -> Tensor:
        pairs = [(flat[6 + 2 * e], flat[7 + 2 * e]) for e in range(len(biases))]
        return mix_experts(x, gate, case.choice, flat[:3], flat[3:6], pairs)

    inputs = [case.x[:, :3], case.gate, *first, *second, *(bias for pair in biases for bias in pair)]
    assert torch.autograd.gradcheck(mixed, [part.detach().clone().requires_grad_() for part in inputs])


@ways
def test_an_expert_without_a_token_has_a_gradient_of_zero(mix: Mix) -> None:
    """So all ranks have a gradient for every expert, and DDP need not look for those without."""
    case = make(12, 4, 2)
    case.choice[:] = torch.tensor([0, 3])
    for leaf, gradient in zip(case.leaves, case.gradients(mix), strict=True):
        assert gradient is not None
        idle = any(leaf is w for w in (*case.first[1:3], *case.second[1:3], *case.biases[1], *case.biases[2]))
        assert bool((gradient == 0).all()) == idle


@ways
def test_no_token_is_dropped(mix: Mix) -> None:
    """All tokens at one expert: there is no capacity to exceed."""
    case = make(64, 8, 1)
    case.choice[:] = 5
    expected = case.gate * F.linear(F.gelu(F.linear(case.x, case.first[5], case.biases[5][0])), case.second[5])
    assert_near(case.mixed(mix), expected + case.gate * case.biases[5][1], 1e-5)


@ways
def test_no_token_at_all(mix: Mix) -> None:
    case = make(0, 4, 2)
    assert case.mixed(mix).shape == (0, C)
    for leaf, gradient in zip(case.leaves, case.gradients(mix), strict=True):
        assert gradient is not None
        assert torch.equal(gradient, torch.zeros_like(leaf))


@ways
def test_frozen_experts(mix: Mix) -> None:
    """They get no gradient, and the others the one that they had."""
    case = make(20, 4, 2)
    every = dict(zip(map(id, case.leaves), case.gradients(mix), strict=True))
    for weight in (case.x, case.first[1], case.second[1], *case.biases[1], case.second[2], case.biases[3][0]):
        weight.requires_grad_(False)
    left = [leaf for leaf in case.leaves if leaf.requires_grad]
    for leaf, gradient in zip(left, case.gradients(mix), strict=True):
        assert torch.equal(gradient, every[id(leaf)])  # pyright: ignore[reportArgumentType]


def test_frozen_experts_cost_no_product() -> None:
    """Of a backward pass's four products per row, those of frozen weights and of frozen tokens are left out."""
    case, macs = make(30, 4, 2, bias=False), 60 * C * H

    def backward_macs() -> float:
        mixed = case.mixed(mix_experts)
        with FlopCounterMode(display=False) as counter:
            mixed.backward(case.grad)
        return counter.get_total_flops() / 2

    assert backward_macs() == 4 * macs
    for weight in (*case.first, *case.second):
        weight.requires_grad_(False)
    assert backward_macs() == 2 * macs
    case.x.requires_grad_(False)
    assert backward_macs() == macs


@ways
def test_tokens_need_no_gradient(mix: Mix) -> None:
    case = make(10, 4, 2)
    expected = case.gradients(by_token)[1:]
    case.x.requires_grad_(False)
    for found, wanted in zip(case.gradients(mix), expected, strict=True):
        assert_near(found, wanted, 1e-5)


@shapes
def test_rows_are_sorted_by_expert(shape: tuple[int, int, int]) -> None:
    """numpy's stable sort is the oracle: an expert's tokens together, earlier tokens first."""
    choice = make(*shape).choice
    order = sort_by_expert(choice, shape[1])
    sorting = np.argsort(choice.flatten().numpy(), kind="stable")
    assert order.order_N.tolist() == sorting.tolist()
    assert order.token_N.tolist() == (sorting // shape[2]).tolist()
    assert order.sizes_E.tolist() == np.bincount(choice.flatten().numpy(), minlength=shape[1]).tolist()
    assert torch.equal(order.order_N[order.row_TK.flatten()], torch.arange(choice.numel()))


class _Mixture(nn.Module):
    def __init__(self, case: Case, mix: Mix) -> None:
        super().__init__()
        self.case, self.mix = case, mix

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x, self.case.gate, self.case.choice, self.case.first, self.case.second, self.case.biases)


@ways
@pytest.mark.parametrize("bias", [True, False])
def test_both_ways_count_the_same(mix: Mix, bias: bool) -> None:
    """A token pays for its K experts and for nothing else: 2 products of C x H, 2 FLOPs a multiply-add."""
    tokens, top_k = 20, 2
    case = make(tokens, 4, top_k, bias=bias)
    assert count_flops(_Mixture(case, mix), case.x) == tokens * top_k * 2 * C * H * 2
