from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from models.rank_correlation import levels, pearson, ranks, weighted_ranks


def _draw(*shape: int, distinct: int) -> Tensor:
    return torch.randint(-distinct, distinct, shape, generator=torch.Generator().manual_seed(distinct))


def _scaled(values: Tensor) -> Tensor:
    return values.double() / 7


@pytest.mark.parametrize("convert", [Tensor.float, Tensor.double, Tensor.half, Tensor.long, _scaled])
@pytest.mark.parametrize("distinct", [1, 2, 5, 10**6])
@pytest.mark.parametrize("number", [1, 200, 20_000])
def test_ranks_are_scipys_average_ranks(convert: Callable[[Tensor], Tensor], distinct: int, number: int) -> None:
    values = convert(_draw(3, 2, number, distinct=distinct).clamp(-60_000, 60_000))
    np.testing.assert_array_equal(ranks(values).numpy(), stats.rankdata(values.numpy(), axis=-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ranks_of_extremes_and_both_zeros(dtype: torch.dtype) -> None:
    most = torch.finfo(dtype)
    values = torch.tensor(
        [0.0, -0.0, most.max, most.min, most.tiny, -most.tiny, float("inf"), float("-inf")], dtype=dtype
    )
    assert ranks(values).tolist() == [4.5, 4.5, 7, 2, 6, 3, 8, 1]


def test_levels_are_positions_among_the_distinct_values() -> None:
    values = _draw(500, distinct=20).float()
    assert torch.equal(levels(values), values.unique(return_inverse=True)[1])


def test_weighted_ranks_are_the_ranks_of_repeated_values() -> None:
    values, times = _draw(300, distinct=50).float(), _draw(300, distinct=3).abs()
    repeated = ranks(values.repeat_interleave(times))
    counted = weighted_ranks(levels(values), times.double())
    assert torch.equal(counted.repeat_interleave(times), repeated)


@pytest.mark.parametrize("distinct", [2, 10**6])
def test_pearson_of_ranks_is_scipys_spearman(distinct: int) -> None:
    values = _draw(3, 5000, distinct=distinct).float()
    expected = stats.spearmanr(values.numpy(), axis=1)
    np.testing.assert_allclose(pearson(ranks(values)).numpy(), expected.statistic, atol=1e-12)  # pyright: ignore[reportAttributeAccessIssue]


def test_pearson_counts_weighted_values_as_often_as_their_weight() -> None:
    values, times = _draw(3, 400, distinct=30).float(), _draw(400, distinct=3).abs()
    weights = times.double()
    counted = pearson(torch.stack([weighted_ranks(levels(row), weights) for row in values]), weights)
    torch.testing.assert_close(counted, pearson(ranks(values.repeat_interleave(times, dim=1))), atol=1e-12, rtol=0)
