"""Tokens -> the gated sum of the experts that each was sent to, without capacity and without dropping (MTHL, Eq. 1).

T tokens, C channels, H hidden, E experts, K experts per token, N = T·K rows sorted by expert.
On a CPU each expert multiplies its slice of the rows, in place; on a GPU one grouped product does all slices, where
channels are multiples of 16 bytes, and the host need not wait to learn how long they are. Both give every expert a
gradient, zero where no token came to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

ALIGNMENT = 16  # bytes: rows of a grouped product start at multiples of it


@dataclass(frozen=True, kw_only=True)
class Order:
    """Rows sorted by expert: each row's token [N] and place in the choices [N], each choice's row [T, K], sizes [E]."""

    token_N: Tensor
    row_TK: Tensor
    order_N: Tensor
    sizes_E: Tensor


def sort_by_expert(choice_TK: Tensor, experts: int) -> Order:
    """Map each token's K experts to the order that brings an expert's tokens together, earlier tokens first."""
    flat_N = choice_TK.flatten()
    order_N = flat_N.to(torch.int16).argsort(stable=True)
    row_N = torch.empty_like(order_N)
    row_N[order_N] = torch.arange(len(order_N), device=order_N.device)
    token_N = order_N // choice_TK.shape[1]
    sizes_E = (flat_N[:, None] == torch.arange(experts, device=flat_N.device)).sum(0)
    return Order(token_N=token_N, row_TK=row_N.view_as(choice_TK), order_N=order_N, sizes_E=sizes_E)


def mix_experts(
    x_TC: Tensor,
    gate_TK: Tensor,
    choice_TK: Tensor,
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    biases: Sequence[tuple[Tensor, Tensor]] = (),
) -> Tensor:
    """Map tokens, their gates and choices to Σ_k gate · W2 gelu(W1 x + b1) + b2 of the experts chosen [T, C].

    `first` holds W1 [H, C] of each expert, `second` W2 [C, H], `biases` (b1, b2) of each, or nothing. Under autocast
    the products are in its type, as those of `torch.nn.functional.linear` are.
    """
    device = x_TC.device.type
    if torch.is_autocast_enabled(device):
        kind = torch.get_autocast_dtype(device)
        x_TC, first, second = x_TC.to(kind), [w.to(kind) for w in first], [w.to(kind) for w in second]
        biases = [(one.to(kind), two.to(kind)) for one, two in biases]
    gate_TK = gate_TK.to(x_TC.dtype)
    order = sort_by_expert(choice_TK, len(first))
    with torch.autocast(device, enabled=False):
        if x_TC.is_cuda and _aligned(first[0]):
            return _grouped(x_TC, gate_TK, order, first, second, biases)
        flat = [bias for pair in biases for bias in pair]
        return _Sliced.apply(x_TC, gate_TK, order, len(first), *first, *second, *flat)  # pyright: ignore[reportReturnType]


def _aligned(weight: Tensor) -> bool:
    return all(size * weight.element_size() % ALIGNMENT == 0 for size in weight.shape)


class _Sliced(torch.autograd.Function):
    """The mixture with one product per expert and layer on slices of shared buffers.

    The gate is folded into the hidden layer, so what an expert gave need not be kept; GELU is computed again in the
    backward pass. Kept are x and the hidden layer before GELU.
    """

    @staticmethod
    def forward(ctx: Any, x_TC: Tensor, gate_TK: Tensor, order: Order, experts: int, *weights: Tensor) -> Tensor:
        first, second, biases = _parts(weights, experts)
        sizes = order.sizes_E.tolist()
        gate_N1 = gate_TK.flatten()[order.order_N][:, None]
        before_NH = x_TC.new_empty(len(gate_N1), first[0].shape[0])
        y_NC = x_TC.new_empty(len(gate_N1), x_TC.shape[1])
        for e, rows in enumerate(_slices(sizes)):
            x = x_TC.index_select(0, order.token_N[rows])  # an expert's tokens fit a cache, and memory is used again
            torch.mm(x, first[e].t(), out=before_NH[rows])
            if biases:
                before_NH[rows] += biases[2 * e]
            hidden = F.gelu(before_NH[rows]).mul_(gate_N1[rows])
            torch.mm(hidden, second[e].t(), out=y_NC[rows])
            if biases:
                y_NC[rows].addcmul_(gate_N1[rows], biases[2 * e + 1])
        ctx.save_for_backward(x_TC, gate_N1, before_NH, *weights)
        ctx.order, ctx.sizes = order, sizes
        return F.embedding_bag(order.row_TK, y_NC, mode="sum")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_TC, gate_N1, before_NH, *weights = ctx.saved_tensors
        order, experts = ctx.order, len(ctx.sizes)
        first, second, biases = _parts(weights, experts)
        given = [
            torch.empty_like(w) if need else None for w, need in zip(weights, ctx.needs_input_grad[4:], strict=True)
        ]
        of_first, of_second, of_biases = _parts(given, experts)
        dx_NC = x_TC.new_empty(len(gate_N1), x_TC.shape[1]) if ctx.needs_input_grad[0] else None
        dgate_N = torch.empty_like(gate_N1[:, 0])
        for e, rows in enumerate(_slices(ctx.sizes)):
            gate, before = gate_N1[rows], before_NH[rows]
            x, dy = (tensor.index_select(0, order.token_N[rows]) for tensor in (x_TC, grads[0]))
            hidden, dhidden = F.gelu(before), dy @ second[e]
            torch.linalg.vecdot(dhidden, hidden, out=dgate_N[rows])
            if of_second[e] is not None:
                torch.mm(dy.t(), hidden.mul_(gate), out=of_second[e])
            dbefore = torch.ops.aten.gelu_backward(dhidden.mul_(gate), before)
            if of_first[e] is not None:
                torch.mm(dbefore.t(), x, out=of_first[e])
            if dx_NC is not None:
                torch.mm(dbefore, first[e], out=dx_NC[rows])
            if biases:
                dgate_N[rows] += dy @ biases[2 * e + 1]
                if of_biases[2 * e] is not None:
                    torch.sum(dbefore, 0, out=of_biases[2 * e])
                if of_biases[2 * e + 1] is not None:
                    torch.mm(gate.t(), dy, out=of_biases[2 * e + 1][None])
        dx_TC = None if dx_NC is None else F.embedding_bag(order.row_TK, dx_NC, mode="sum")
        return dx_TC, dgate_N[order.row_TK], None, None, *given


def _parts(weights: Sequence[Any], experts: int) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
    """First layers, second layers, and the biases of both in turn."""
    return weights[:experts], weights[experts : 2 * experts], weights[2 * experts :]


def _slices(sizes: Sequence[int]) -> list[slice]:
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def _grouped(
    x_TC: Tensor,
    gate_TK: Tensor,
    order: Order,
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    biases: Sequence[tuple[Tensor, Tensor]],
) -> Tensor:
    """The mixture with two grouped products; what brings rows together and apart adds in a fixed order."""
    ends_E = order.sizes_E.cumsum(0).to(torch.int32)
    gate_N1 = gate_TK.flatten()[order.order_N][:, None]
    x_NC = _Spread.apply(x_TC, order)
    hidden_NH = F.grouped_mm(x_NC, torch.stack(list(first)).transpose(1, 2), offs=ends_E)
    expert_N = torch.searchsorted(ends_E, torch.arange(len(x_NC), device=x_TC.device), right=True)
    if biases:
        hidden_NH = hidden_NH + _OfExpert.apply(torch.stack([one for one, _ in biases]), expert_N)
    hidden_NH = F.gelu(hidden_NH) * gate_N1
    y_NC = F.grouped_mm(hidden_NH, torch.stack(list(second)).transpose(1, 2), offs=ends_E)
    if biases:
        y_NC = y_NC + gate_N1 * _OfExpert.apply(torch.stack([two for _, two in biases]), expert_N)
    return _Combine.apply(y_NC, order)  # pyright: ignore[reportReturnType]


class _OfExpert(torch.autograd.Function):
    """A row for each expert [E, H] -> that of each row's expert [N, H]; its gradient is a product, in a fixed order."""

    @staticmethod
    def forward(ctx: Any, row_EH: Tensor, expert_N: Tensor) -> Tensor:
        ctx.save_for_backward(expert_N)
        ctx.experts = len(row_EH)
        return row_EH.index_select(0, expert_N)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (expert_N,) = ctx.saved_tensors
        of_NE = expert_N[:, None] == torch.arange(ctx.experts, device=expert_N.device)
        return of_NE.to(grads[0].dtype).t() @ grads[0], None


class _Spread(torch.autograd.Function):
    """Tokens [T, C] -> rows [N, C]; its gradient is `_Combine`."""

    @staticmethod
    def forward(ctx: Any, x_TC: Tensor, order: Order) -> Tensor:
        ctx.order = order
        return x_TC.index_select(0, order.token_N)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _sum_rows(grads[0], ctx.order), None


class _Combine(torch.autograd.Function):
    """Rows [N, C] -> the sum of each token's K rows [T, C]; its gradient is `_Spread`."""

    @staticmethod
    def forward(ctx: Any, y_NC: Tensor, order: Order) -> Tensor:
        ctx.order = order
        return _sum_rows(y_NC, order)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].index_select(0, ctx.order.token_N), None


def _sum_rows(y_NC: Tensor, order: Order) -> Tensor:
    return F.embedding_bag(order.row_TK, y_NC, mode="sum")
