"""Ranks of long rows and the correlation of the rows: each row is sorted once, and ranked anew for every resample.

Shapes: T rows, N values in a row. Ranks and correlations are float64.
"""

import torch
from torch import Tensor


def ranks(values: Tensor) -> Tensor:
    """Map values [..., N] to their ranks 1..N along the last axis, float64; equal values share their average rank."""
    rows = values.reshape(-1, values.shape[-1])
    ranks_TN = torch.empty(rows.shape, dtype=torch.float64, device=values.device)
    weights_N = torch.ones_like(ranks_TN[0])
    for row_N, ranks_N in zip(rows, ranks_TN, strict=True):
        ranks_N.copy_(weighted_ranks(levels(row_N), weights_N))
    return ranks_TN.reshape(values.shape)


def levels(values_N: Tensor) -> Tensor:
    """Map values [N] to the positions [N] of each among the distinct values, from 0."""
    sorted_N, order_N = _sortable(values_N).sort()
    steps_N = (sorted_N != sorted_N.roll(1)).long()
    steps_N[:1] = 0
    return torch.empty_like(order_N).scatter_(0, order_N, steps_N.cumsum(0))


def weighted_ranks(levels_N: Tensor, weights_N: Tensor) -> Tensor:
    """Map levels [N] to the average ranks [N] where value n occurs `weights_N[n]` times; nothing is sorted."""
    counts = torch.bincount(levels_N, weights_N)
    return (counts.cumsum(0) - (counts - 1) / 2).index_select(0, levels_N)


def pearson(ranks_TN: Tensor, weights_N: Tensor | None = None) -> Tensor:
    """Map ranks [T, N] to the correlation [T, T] of the rows, value n counted `weights_N[n]` times.

    NaN between a row without variance and any other.
    """
    centred_TN = centred(ranks_TN, weights_N)
    return correlation(centred_TN @ centred_TN.T)


def centred(ranks_TN: Tensor, weights_N: Tensor | None = None) -> Tensor:
    """Rows of ranks 1..n, moved to their mean (n + 1) / 2, times the root of the weights."""
    if weights_N is None:
        return ranks_TN - (ranks_TN.shape[1] + 1) / 2
    return (ranks_TN - (weights_N.sum() + 1) / 2).mul_(weights_N.sqrt())


def correlation(covariance: Tensor) -> Tensor:
    """Map a covariance (upper triangle) to the exactly symmetric correlation with an exact unit diagonal."""
    deviation = covariance.diagonal().sqrt()
    return mirrored(covariance / torch.outer(deviation, deviation)).clamp_(-1, 1).fill_diagonal_(1)


def mirrored(matrix: Tensor) -> Tensor:
    """The symmetric matrix with the same upper triangle and diagonal."""
    return matrix.triu().add_(matrix.triu(1).T)


def _sortable(values_N: Tensor) -> Tensor:
    """Integers in the order of the values where these are floats: torch sorts integers several times as fast."""
    if values_N.dtype not in (torch.float32, torch.float64):
        return values_N
    integer, sign = (torch.int32, 31) if values_N.dtype == torch.float32 else (torch.int64, 63)
    bits_N = (values_N + 0.0).view(integer)  # + 0.0: minus zero and zero are one value
    return bits_N ^ ((bits_N >> sign) & torch.iinfo(integer).max)  # among negative floats larger bits mean less
