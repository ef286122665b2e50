"""Representation similarity analysis: how alike two tasks see the same images (Vandenhende et al. 2020, section 3.1).

Shapes: K probe images, F features, N pairs of images, T tasks, D locations, R resamples, P permutations.
Results are float64 where the input is float64, else float32.
"""

import math
from collections.abc import Iterable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import normalize

from models.rank_correlation import centred, correlation, levels, mirrored, pearson, ranks, weighted_ranks

ROWS = 32  # 1 MiB of a chunk
# Features whose range is at most this, and at least its inverse, have sums of squares that float32 holds.
MODERATE = 1e10


def rdm(
    features: Tensor,
    *,
    chunk: int = 8192,
    centre: bool = False,
    device: torch.device | None = None,
    name: str = "features",
) -> Tensor:
    """Map features [K, ...] to their dissimilarities [K, K], 1 - Pearson of the flattened rows (step 1 of RSA).

    Symmetric with a zero diagonal. `centre` first subtracts the mean image's features. F is read twice in chunks,
    each moved to `device` (by default, that of the features), and summed in float64: neither memory nor error grows
    with F. ValueError names `name` and the image whose features are constant or not finite.
    """
    features_KF = features.detach().reshape(len(features), -1)
    chunks = partial(_chunks, features_KF, chunk, centre, device or features.device, name)
    mean_K, range_K = _spread(chunks(), features_KF.shape[1], name)
    # Pearson ignores a shift and a scale per row: the one keeps sums of squares from cancelling, the other, where it is
    # needed, from overflowing.
    extreme = bool(((range_K < 1 / MODERATE) | (range_K > MODERATE)).any())
    covariance_KK = torch.zeros(len(features), len(features), dtype=torch.float64, device=range_K.device)
    for part_KF in chunks():
        centred_KF = part_KF - mean_K[:, None]
        covariance_KK += _products(centred_KF.div_(range_K[:, None]) if extreme else centred_KF)
    return (1 - correlation(covariance_KK)).to(_result_type(features))


def affinity(rdms: Tensor) -> Tensor:
    """Map RDMs [T, D, K, K] to task affinities [D, T, T]: Spearman of the strict upper triangles (step 2 of RSA)."""
    affinity_DTT = torch.stack([pearson(ranks(triangles_TN)) for triangles_TN in _triangles(rdms)])
    return affinity_DTT.to(_result_type(rdms))


def bootstrap_affinity(rdms: Tensor, *, resamples: int, seed: int) -> Tensor:
    """Map RDMs [T, D, K, K] to affinities [R, D, T, T], each over K images drawn anew with replacement.

    Pairs of one image with itself are left out: their zeros are no measurement, and every RDM shares them. A pair of
    images drawn m and n times counts m * n times. All tasks and locations see the same draw.
    """
    images = rdms.shape[-1]
    generator = torch.Generator().manual_seed(seed)
    draws = [torch.randint(images, (images,), generator=generator) for _ in range(resamples)]
    counts_RK = [draw.bincount(minlength=images).to(rdms.device) for draw in draws]
    samples_DR = []
    for triangles_TN in _triangles(rdms):
        levels_TN = torch.stack([levels(row_N) for row_N in triangles_TN])
        samples_DR.append(torch.stack([_resampled(levels_TN, counts_K) for counts_K in counts_RK]))
    samples_RDTT = torch.stack(samples_DR, 1)
    if samples_RDTT.isnan().any():
        raise ValueError(f"{images} probe images: a resample left an RDM with equal dissimilarities; use more images")
    return samples_RDTT.to(_result_type(rdms))


def interval(samples: Tensor, level: float = 0.95) -> tuple[Tensor, Tensor]:
    """Map samples [R, ...] to the two ends [...] of the central interval that holds `level` of them."""
    sorted_samples = samples.sort(0).values  # torch.quantile refuses more than 16 million values
    return _quantile(sorted_samples, (1 - level) / 2), _quantile(sorted_samples, (1 + level) / 2)


def permutation_null(rdms: Tensor, *, permutations: int, seed: int) -> Tensor:
    """Map RDMs [T, D, K, K] to affinities [P, D, T, T] of unrelated tasks: one RDM's image labels are shuffled.

    The diagonal holds a task against its own shuffled RDM. All tasks and locations see the same shuffle.
    """
    images = rdms.shape[-1]
    generator = torch.Generator().manual_seed(seed)
    shuffles_PK = [torch.randperm(images, generator=generator).to(rdms.device) for _ in range(permutations)]
    samples_DP = []
    for triangles_TN in _triangles(rdms):
        unit_NT = normalize(centred(ranks(triangles_TN))).T.contiguous()  # whole rows are quick to shuffle
        samples_DP.append(torch.stack([_unrelated(unit_NT, shuffle_K) for shuffle_K in shuffles_PK]))
    return torch.stack(samples_DP, 1).to(_result_type(rdms))


def _chunks(features_KF: Tensor, chunk: int, centre: bool, device: torch.device, name: str) -> Iterator[Tensor]:
    for columns_KF in features_KF.split(chunk, dim=1):
        part_KF = columns_KF.to(device, _result_type(columns_KF))
        if not centre:
            yield part_KF
            continue
        mean_F = part_KF.mean(0)
        if not mean_F.isfinite().all():
            _refuse(~part_KF.isfinite().all(1), name, "not finite")
        yield part_KF - mean_F


def _spread(chunks: Iterable[Tensor], features: int, name: str) -> tuple[Tensor, Tensor]:
    """Mean [K] and largest minus smallest feature [K] of every image, refused where Pearson is not defined."""
    low_CK, high_CK, sum_CK = (torch.stack(part) for part in zip(*map(_extremes, chunks), strict=True))
    range_K = high_CK.amax(0) - low_CK.amin(0)
    mean_K = sum_CK.sum(0, dtype=torch.float64) / features
    _refuse(~(range_K.isfinite() & mean_K.isfinite()), name, "not finite")
    _refuse(range_K == 0, name, "constant (no variance)")
    return mean_K.to(range_K.dtype), range_K


def _extremes(part_KF: Tensor) -> list[Tensor]:
    """Smallest feature, largest feature and sum [K] of a chunk."""
    # A few rows at a time fit a CPU's cache: memory is then read once and not three times.
    rows = part_KF.split(ROWS if part_KF.device.type == "cpu" else len(part_KF))
    found = [(some_KF.amin(1), some_KF.amax(1), some_KF.sum(1)) for some_KF in rows]
    return [torch.cat(values) for values in zip(*found, strict=True)]


def _refuse(bad_K: Tensor, name: str, what: str) -> None:
    if bad_K.any():
        raise ValueError(f"{name}: the features of image {int(bad_K.nonzero()[0])} are {what}")


def _products(rows_KF: Tensor) -> Tensor:
    """Inner products [K, K] of the rows; numpy computes one triangle where torch computes both."""
    if rows_KF.device.type != "cpu":
        return rows_KF @ rows_KF.T
    rows = rows_KF.numpy()
    return torch.from_numpy(rows @ rows.T)


def _triangles(rdms: Tensor) -> Iterator[Tensor]:
    """The strict upper triangles [T, N] of one location after the other, refused where ranks have no correlation."""
    if rdms.dim() != 4 or rdms.shape[-1] != rdms.shape[-2]:
        raise ValueError(f"RDMs have shape {list(rdms.shape)}; expected [tasks, locations, images, images]")
    above_N = _above_diagonal(rdms.shape[-1], rdms.device)
    for location, rdms_TKK in enumerate(rdms.unbind(1)):
        triangles_TN = torch.stack([rdm_KK.reshape(-1).index_select(0, above_N) for rdm_KK in rdms_TKK])
        for task, triangle_N in enumerate(triangles_TN):
            where = f"rdms[task {task}, location {location}]"
            ends = torch.stack(triangle_N.aminmax()) if len(triangle_N) else triangle_N
            if not ends.isfinite().all():
                raise ValueError(f"{where} holds values that are not finite")
            if len(triangle_N) < 2 or ends[0] == ends[1]:
                raise ValueError(f"{where} has no variance: all its {len(triangle_N)} dissimilarities are equal")
        yield triangles_TN


def _triangle(matrix_KK: Tensor) -> Tensor:
    """The strict upper triangle [N]: with the zero diagonal, unrelated RDMs would look alike."""
    return matrix_KK.reshape(-1).index_select(0, _above_diagonal(len(matrix_KK), matrix_KK.device))


def _above_diagonal(images: int, device: torch.device) -> Tensor:
    """The places [N] of the strict upper triangle in a flattened matrix [K, K]."""
    first_N, second_N = torch.triu_indices(images, images, offset=1, device=device)
    return first_N * images + second_N


def _resampled(levels_TN: Tensor, counts_K: Tensor) -> Tensor:
    """Affinities [T, T] where image k occurs `counts_K[k]` times; pairs that don't occur are left out of the work."""
    weights_N = _triangle(torch.outer(counts_K, counts_K))
    drawn_M = weights_N.nonzero().squeeze(1)
    weights_M = weights_N.index_select(0, drawn_M).double()
    ranks_TM = torch.stack([weighted_ranks(levels_N.index_select(0, drawn_M), weights_M) for levels_N in levels_TN])
    return pearson(ranks_TM, weights_M)


def _unrelated(unit_NT: Tensor, shuffle_K: Tensor) -> Tensor:
    """Affinities [T, T] of each RDM with another whose images are shuffled, from unit ranks."""
    images = len(shuffle_K)
    first_N, second_N = torch.triu_indices(images, images, offset=1, device=shuffle_K.device)
    pair_KK = torch.zeros(images, images, dtype=torch.int64, device=shuffle_K.device)
    pair_KK[first_N, second_N] = pair_KK[second_N, first_N] = torch.arange(len(first_N), device=shuffle_K.device)
    shuffled_N = _triangle(pair_KK[shuffle_K][:, shuffle_K])
    return mirrored(unit_NT.T @ unit_NT.index_select(0, shuffled_N))


def _quantile(sorted_samples: Tensor, share: float) -> Tensor:
    """The value [...] below which `share` of the samples [R, ...] lie, on the line between its two neighbours."""
    place = share * (len(sorted_samples) - 1)
    return torch.lerp(sorted_samples[math.floor(place)], sorted_samples[math.ceil(place)], place % 1)


def _result_type(values: Tensor) -> torch.dtype:
    return torch.float64 if values.dtype == torch.float64 else torch.float32
