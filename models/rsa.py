"""Representation similarity analysis: how alike two tasks see the same images (Vandenhende et al. 2020, section 3.1).

Shapes: K probe images, F features, N pairs of images, T tasks, D locations, R resamples, P permutations.
Results are float64 where the input is float64, else float32.
"""

import torch
from torch import Tensor

ROWS = 256  # rows of the triangle that one product fills: half of the full product's work, in matrices still large


def rdm(features: Tensor, *, chunk: int = 8192, name: str = "features") -> Tensor:
    """Map features [K, ...] to their dissimilarities [K, K], 1 - Pearson of the flattened rows (step 1 of RSA).

    Symmetric with a zero diagonal. Sums over F run in chunks with float64 accumulators, so that the error does not
    grow with F. ValueError names `name` and the image whose features are constant or not finite.
    """
    features_KF = features.detach().reshape(len(features), -1)
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    range_K = _ranges(features_KF, dtype, name)
    # Pearson ignores a shift and a scale per row; these two keep the sums of squares from cancelling and overflowing.
    shift_K = features_KF[:, :chunk].to(dtype).mean(1)
    images = len(features_KF)
    products_KK = torch.zeros(images, images, dtype=torch.float64, device=features.device)
    sums_K = torch.zeros(images, dtype=torch.float64, device=features.device)
    for part_KF in features_KF.split(chunk, dim=1):
        rows_KF = (part_KF.to(dtype) - shift_K[:, None]) / range_K[:, None]
        sums_K += rows_KF.sum(1, dtype=torch.float64)
        for top in range(0, images, ROWS):
            products_KK[top : top + ROWS, top:] += rows_KF[top : top + ROWS] @ rows_KF[top:].T
    covariance_KK = products_KK - torch.outer(sums_K, sums_K) / features_KF.shape[1]
    return (1 - _correlation(covariance_KK)).to(dtype)


def ranks(values: Tensor) -> Tensor:
    """Map values [..., N] to their ranks 1..N along the last axis, float64; equal values share their average rank."""
    rows = values.reshape(-1, values.shape[-1])
    weights_N = torch.ones(values.shape[-1], dtype=torch.float64, device=values.device)
    return torch.stack([_weighted_ranks(_order(row_N), weights_N) for row_N in rows]).reshape(values.shape)


def affinity(rdms: Tensor) -> Tensor:
    """Map RDMs [T, D, K, K] to task affinities [D, T, T]: Spearman of the strict upper triangles (step 2 of RSA)."""
    affinity_DTT = torch.stack([_pearson(ranks(triangles_TN)) for triangles_TN in _triangles(rdms)])
    return affinity_DTT.to(_result_type(rdms))


def bootstrap_affinity(rdms: Tensor, *, resamples: int, seed: int) -> Tensor:
    """Map RDMs [T, D, K, K] to affinities [R, D, T, T], each over K images drawn anew with replacement.

    Pairs of one image with itself are left out: their zeros are no measurement, and every RDM shares them. A pair of
    images drawn m and n times counts m * n times. All tasks and locations see the same draw.
    """
    images = rdms.shape[-1]
    order_DTN = [[_order(row_N) for row_N in triangles_TN] for triangles_TN in _triangles(rdms)]
    first_N, second_N = _pairs(rdms)
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for _ in range(resamples):
        drawn_K = torch.randint(images, (images,), generator=generator).bincount(minlength=images).to(rdms.device)
        weights_N = (drawn_K[first_N] * drawn_K[second_N]).double()
        for order_TN in order_DTN:
            ranks_TN = torch.stack([_weighted_ranks(order_N, weights_N) for order_N in order_TN])
            samples.append(_pearson(ranks_TN, weights_N))
    samples_RDTT = torch.stack(samples).unflatten(0, (resamples, len(order_DTN)))
    if samples_RDTT.isnan().any():
        raise ValueError(f"{images} probe images: a resample left an RDM with equal dissimilarities; use more images")
    return samples_RDTT.to(_result_type(rdms))


def interval(samples: Tensor, level: float = 0.95) -> tuple[Tensor, Tensor]:
    """Map samples [R, ...] to the two ends [...] of the central interval that holds `level` of them."""
    return samples.quantile((1 - level) / 2, dim=0), samples.quantile((1 + level) / 2, dim=0)


def permutation_null(rdms: Tensor, *, permutations: int, seed: int) -> Tensor:
    """Map RDMs [T, D, K, K] to affinities [P, D, T, T] of unrelated tasks: one RDM's image labels are shuffled.

    The diagonal holds a task against its own shuffled RDM. All tasks and locations see the same shuffle.
    """
    images = rdms.shape[-1]
    first_N, second_N = _pairs(rdms)
    pair_KK = torch.zeros(images, images, dtype=torch.int64, device=rdms.device)
    pair_KK[first_N, second_N] = pair_KK[second_N, first_N] = torch.arange(len(first_N), device=rdms.device)
    units_DTN = [_unit(ranks(triangles_TN)) for triangles_TN in _triangles(rdms)]
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for _ in range(permutations):
        shuffle_K = torch.randperm(images, generator=generator).to(rdms.device)
        shuffled_N = pair_KK[shuffle_K[first_N], shuffle_K[second_N]]
        samples += [_mirrored(unit_TN @ unit_TN[:, shuffled_N].T) for unit_TN in units_DTN]
    return torch.stack(samples).unflatten(0, (permutations, len(units_DTN))).to(_result_type(rdms))


def _ranges(features_KF: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """Largest minus smallest feature of every image, refused where Pearson is not defined."""
    range_K = features_KF.amax(1).to(dtype) - features_KF.amin(1).to(dtype)
    for bad_K, what in ((~range_K.isfinite(), "not finite"), (range_K == 0, "constant (no variance)")):
        if bad_K.any():
            raise ValueError(f"{name}: the features of image {int(bad_K.nonzero()[0])} are {what}")
    return range_K


def _triangles(rdms: Tensor) -> list[Tensor]:
    """The strict upper triangles [T, N] of every location, refused where a rank correlation is not defined."""
    if rdms.dim() != 4 or rdms.shape[-1] != rdms.shape[-2]:
        raise ValueError(f"RDMs have shape {list(rdms.shape)}; expected [tasks, locations, images, images]")
    first_N, second_N = _pairs(rdms)
    triangles_DTN = []
    for location, rdms_TKK in enumerate(rdms.unbind(1)):
        triangles_TN = rdms_TKK[:, first_N, second_N]
        for task, triangle_N in enumerate(triangles_TN):
            where = f"rdms[task {task}, location {location}]"
            if not triangle_N.isfinite().all():
                raise ValueError(f"{where} holds values that are not finite")
            if len(triangle_N) < 2 or triangle_N.min() == triangle_N.max():
                raise ValueError(f"{where} has no variance: all its {len(triangle_N)} dissimilarities are equal")
        triangles_DTN.append(triangles_TN)
    return triangles_DTN


def _pairs(rdms: Tensor) -> Tensor:
    """Row and column [2, N] of the strict upper triangle: the zero diagonal would make unrelated RDMs look alike."""
    return torch.triu_indices(rdms.shape[-1], rdms.shape[-1], offset=1, device=rdms.device)


def _order(values_N: Tensor) -> Tensor:
    """Position of every value among the distinct values, from 0."""
    return values_N.unique(return_inverse=True)[1]


def _weighted_ranks(order_N: Tensor, weights_N: Tensor) -> Tensor:
    """Average ranks of values that each occur `weights_N` times; one sort serves every resample."""
    counts = torch.bincount(order_N, weights_N)
    return (counts.cumsum(0) - (counts - 1) / 2)[order_N]


def _pearson(ranks_TN: Tensor, weights_N: Tensor | None = None) -> Tensor:
    """Correlation [T, T] of the rows, pair n counted `weights_N[n]` times."""
    unit_TN = _unit(ranks_TN, weights_N)
    return _correlation(unit_TN @ unit_TN.T)


def _unit(ranks_TN: Tensor, weights_N: Tensor | None = None) -> Tensor:
    """Rows moved to mean 0 and scaled to norm 1, times the root of the weights; NaN where a row has no variance."""
    weights_N = torch.ones_like(ranks_TN[0]) if weights_N is None else weights_N
    centred_TN = (ranks_TN - (weights_N.sum() + 1) / 2) * weights_N.sqrt()  # ranks 1..n have the mean (n + 1) / 2
    return centred_TN / centred_TN.norm(dim=1, keepdim=True)


def _correlation(covariance: Tensor) -> Tensor:
    """Map a covariance (upper triangle) to the exactly symmetric correlation with an exact unit diagonal."""
    deviation = covariance.diagonal().sqrt()
    correlation = _mirrored(covariance / torch.outer(deviation, deviation)).clamp(-1, 1)
    return correlation.fill_diagonal_(1)


def _mirrored(matrix: Tensor) -> Tensor:
    """The symmetric matrix with the same upper triangle and diagonal."""
    return matrix.triu() + matrix.triu(1).T


def _result_type(rdms: Tensor) -> torch.dtype:
    return torch.float64 if rdms.dtype == torch.float64 else torch.float32
