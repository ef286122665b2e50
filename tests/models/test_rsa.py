from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from models.rsa import affinity, bootstrap_affinity, interval, permutation_null, rdm


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=_generator(seed))


def _rdms(tasks: int, locations: int, images: int, *, common: float = 0.0, seed: int = 0) -> Tensor:
    """RDMs of random features of which the share `common` is the same for all tasks."""
    shared = _features(locations, images, 32, seed=seed)
    own = _features(tasks, locations, images, 32, seed=seed + 1)
    mixed = common * shared + (1 - common) * own
    return torch.stack([torch.stack([rdm(features) for features in task]) for task in mixed])


def _triangle(matrix: Tensor) -> np.ndarray:
    return matrix.numpy()[np.triu_indices(len(matrix), k=1)]


def _spearman(columns: np.ndarray) -> Any:
    result: Any = stats.spearmanr(columns)
    return result.statistic


def _post_relu(images: int) -> Tensor:
    return _features(images, 3000).sub(1).relu()


def _one_hot_codes(images: int) -> Tensor:
    return torch.randint(0, 2, (images, 40), generator=_generator()).float()


def _far_from_zero(images: int) -> Tensor:
    return _features(images, 3000) + 200


@pytest.mark.parametrize("make", [_post_relu, _one_hot_codes, _far_from_zero])
@pytest.mark.parametrize("images", [2, 17, 300])
def test_rdm_is_one_minus_pearson(make: Callable[[int], Tensor], images: int) -> None:
    features = make(images)
    expected = 1 - np.corrcoef(features.double().numpy())
    np.testing.assert_allclose(rdm(features).numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(rdm(features.double()).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32])
def test_rdm_is_exactly_symmetric_with_a_zero_diagonal_in_any_type(dtype: torch.dtype) -> None:
    features = _features(270, 4, 5, 5).mul(10).to(dtype)
    result = rdm(features)
    assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(result, result.T)
    assert torch.equal(result.diagonal(), torch.zeros(270, dtype=result.dtype))
    assert 0 <= result.min() <= result.max() <= 2


def test_rdm_flattens_without_pooling() -> None:
    features = _features(9, 4, 3, 2)
    assert torch.equal(rdm(features), rdm(features.flatten(1)))


@pytest.mark.parametrize("chunk", [1, 7, 64, 100, 5000])
def test_rdm_does_not_depend_on_the_chunk(chunk: int) -> None:
    features = _features(20, 100) + 5
    torch.testing.assert_close(rdm(features, chunk=chunk), rdm(features), atol=2e-6, rtol=0)


def test_rdm_ignores_shift_and_positive_scale_of_each_image() -> None:
    features = _features(12, 500)
    scale, shift = torch.logspace(-30, 30, 12)[:, None], torch.linspace(-50, 50, 12)[:, None]
    torch.testing.assert_close(rdm(features * scale), rdm(features), atol=1e-5, rtol=0)
    torch.testing.assert_close(rdm(features + shift), rdm(features), atol=1e-5, rtol=0)


def test_rdm_of_opposite_and_equal_images() -> None:
    row = _features(1, 50)
    assert rdm(torch.cat([row, row, -row])).round(decimals=5).tolist() == [[0, 0, 2], [0, 0, 2], [2, 2, 0]]


@pytest.mark.parametrize("value", [0.0, 0.1, 1e20])
def test_rdm_refuses_a_constant_image_by_name_and_index(value: float) -> None:
    features = _features(5, 10000)
    features[3] = value
    with pytest.raises(ValueError, match="depth, location 2: the features of image 3 are constant"):
        rdm(features, name="depth, location 2")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_rdm_refuses_features_that_are_not_finite(value: float) -> None:
    features = _features(5, 10)
    features[4, 2] = value
    with pytest.raises(ValueError, match="features: the features of image 4 are not finite"):
        rdm(features)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_rdm_names_the_image_that_is_not_finite_before_centring_spreads_it(value: float) -> None:
    features = _features(5, 10)
    features[4, 7] = value
    with pytest.raises(ValueError, match="features: the features of image 4 are not finite"):
        rdm(features, chunk=4, centre=True)


def test_rdm_of_centred_features_refuses_images_that_are_all_alike() -> None:
    with pytest.raises(ValueError, match="features of image 0 are constant"):
        rdm(_features(1, 30).expand(4, 30), centre=True)


@pytest.mark.parametrize("chunk", [7, 64, 8192])
def test_rdm_centres_every_feature_over_the_images(chunk: int) -> None:
    features = _features(30, 5, 40) + 3 * _features(5, 40, seed=1)
    rows = features.double().flatten(1)
    expected = 1 - np.corrcoef((rows - rows.mean(0)).numpy())
    np.testing.assert_allclose(rdm(features, chunk=chunk, centre=True).numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("centre", [False, True])
def test_rdm_leaves_the_features_as_they_are(centre: bool) -> None:
    features = _features(10, 50)
    before = features.clone()
    rdm(features, centre=centre)
    assert torch.equal(features, before)


def test_rdm_error_does_not_grow_with_the_number_of_features() -> None:
    for number in (10_000, 200_000):
        features = _features(20, number).sub(1).relu() + 5
        expected = 1 - np.corrcoef(features.double().numpy())
        np.testing.assert_allclose(rdm(features).numpy(), expected, atol=1e-6)


def _two_levels(rdms: Tensor) -> Tensor:
    return (rdms > 1).float()


def _one_decimal(rdms: Tensor) -> Tensor:
    return rdms.round(decimals=1)


@pytest.mark.parametrize("tie", [_two_levels, _one_decimal, torch.clone])
def test_affinity_is_spearman_of_the_strict_upper_triangles(tie: Callable[[Tensor], Tensor]) -> None:
    rdms = tie(_rdms(4, 3, 25, common=0.5))
    result = affinity(rdms)
    assert torch.equal(result, result.mT)
    assert torch.equal(result.diagonal(dim1=1, dim2=2), torch.ones(3, 4))
    for location in range(3):
        columns = np.stack([_triangle(rdms[task, location]) for task in range(4)], axis=1)
        np.testing.assert_allclose(result[location].numpy(), _spearman(columns), atol=1e-6)


def test_the_same_order_of_the_images_in_all_rdms_changes_nothing() -> None:
    rdms = _rdms(3, 2, 30, common=0.5)
    order = torch.randperm(30, generator=_generator())
    torch.testing.assert_close(affinity(rdms[:, :, order][..., order]), affinity(rdms), atol=1e-6, rtol=0)
    torch.testing.assert_close(rdm(_features(30, 99)[order]), rdm(_features(30, 99))[order][:, order])


def test_affinity_sees_only_the_order_of_dissimilarities() -> None:
    rdms = _rdms(3, 2, 20)
    torch.testing.assert_close(affinity(rdms**3), affinity(rdms))


def test_affinity_of_one_task_and_of_float64() -> None:
    result = affinity(_rdms(1, 2, 10).double())
    assert torch.equal(result, torch.ones(2, 1, 1, dtype=torch.float64))


def _bootstrap(rdms: Tensor) -> Tensor:
    return bootstrap_affinity(rdms, resamples=2, seed=0)


def _null(rdms: Tensor) -> Tensor:
    return permutation_null(rdms, permutations=2, seed=0)


@pytest.mark.parametrize("function", [affinity, _bootstrap, _null])
@pytest.mark.parametrize(
    ("value", "match"), [(0.5, r"rdms\[task 1, location 2\] has no variance"), (float("nan"), "not finite")]
)
def test_an_rdm_without_a_rank_correlation_is_refused(
    function: Callable[[Tensor], Tensor], value: float, match: str
) -> None:
    rdms = _rdms(2, 3, 10)
    rdms[1, 2] = value
    with pytest.raises(ValueError, match=match):
        function(rdms)


@pytest.mark.parametrize("function", [affinity, _bootstrap, _null])
def test_rdms_of_another_shape_are_refused(function: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match=r"\[tasks, locations, images, images\]"):
        function(torch.rand(2, 5, 5))
    with pytest.raises(ValueError, match="no variance"):
        function(_rdms(2, 1, 2))


@pytest.mark.parametrize("tie", [_two_levels, _one_decimal, torch.clone])
def test_bootstrap_is_spearman_over_the_pairs_of_different_images_in_the_resample(
    tie: Callable[[Tensor], Tensor],
) -> None:
    images = 15
    rdms = tie(_rdms(3, 2, images, common=0.5))
    samples = bootstrap_affinity(rdms, resamples=6, seed=3)
    assert samples.shape == (6, 2, 3, 3)
    generator = _generator(3)
    for sample in samples:
        drawn = torch.randint(images, (images,), generator=generator)
        pairs = [(i, j) for n, i in enumerate(drawn) for j in drawn[:n] if i != j]
        first, second = torch.tensor(pairs).T
        for location in range(2):
            columns = rdms[:, location, first, second].T.numpy()
            np.testing.assert_allclose(sample[location].numpy(), _spearman(columns), atol=1e-6)


def test_bootstrap_interval_holds_the_affinity_and_narrows_with_more_images() -> None:
    widths = []
    for images in (20, 80):
        rdms = _rdms(2, 1, images, common=0.5)
        low, high = interval(bootstrap_affinity(rdms, resamples=200, seed=0))
        assert low[0, 0, 1] < affinity(rdms)[0, 0, 1] < high[0, 0, 1]
        widths.append(float(high[0, 0, 1] - low[0, 0, 1]))
    assert widths[1] < widths[0]


def test_bootstrap_interval_covers_the_affinity_of_the_images_population() -> None:
    shared, own = _features(1000, 32), _features(2, 1000, 32, seed=1)
    population = torch.stack([rdm(shared + own_task) for own_task in own])[:, None]
    truth = float(affinity(population)[0, 0, 1])
    covered = 0
    for study in range(30):
        drawn = torch.randperm(1000, generator=_generator(study))[:40]
        low, high = interval(bootstrap_affinity(population[:, :, drawn][..., drawn], resamples=60, seed=study))
        covered += bool(low[0, 0, 1] < truth < high[0, 0, 1])
    assert covered >= 27


def test_bootstrap_refuses_too_few_images() -> None:
    with pytest.raises(ValueError, match="3 probe images"):
        bootstrap_affinity(_rdms(2, 1, 3), resamples=50, seed=0)


def test_interval_holds_the_share_it_names() -> None:
    low, high = interval(torch.arange(1001.0)[:, None], level=0.9)
    assert (low.tolist(), high.tolist()) == ([pytest.approx(50)], [pytest.approx(950)])


@pytest.mark.parametrize("samples", [1, 2, 7, 50])
@pytest.mark.parametrize("level", [0.5, 0.95, 1.0])
def test_interval_ends_are_quantiles(samples: int, level: float) -> None:
    values = _features(samples, 3, 2)
    expected = np.quantile(values.numpy(), [(1 - level) / 2, (1 + level) / 2], axis=0)
    np.testing.assert_allclose(torch.stack(interval(values, level)).numpy(), expected, atol=1e-6)


def test_interval_of_more_samples_than_torch_quantile_takes() -> None:
    low, high = interval(torch.arange(2.0)[:, None].expand(2, 8_500_000), level=0.5)
    assert bool((low == 0.25).all() and (high == 0.75).all())


def test_permutation_null_is_the_affinity_with_relabelled_images() -> None:
    rdms = _rdms(3, 2, 12, common=0.5)
    samples = permutation_null(rdms, permutations=4, seed=5)
    assert samples.shape == (4, 2, 3, 3)
    assert torch.equal(samples, samples.mT)
    generator = _generator(5)
    for sample in samples:
        shuffle = torch.randperm(12, generator=generator)
        shuffled = rdms[:, :, shuffle][:, :, :, shuffle]
        for location, a, b in [(0, 0, 1), (1, 1, 2), (1, 0, 0)]:
            expected = _spearman(np.stack([_triangle(rdms[a, location]), _triangle(shuffled[b, location])], axis=1))
            assert float(sample[location, a, b]) == pytest.approx(expected, abs=1e-6)


def test_permutation_null_is_centred_and_below_true_likeness() -> None:
    rdms = _rdms(2, 1, 40, common=0.6)
    null = permutation_null(rdms, permutations=300, seed=0)[:, 0, 0, 1]
    assert abs(float(null.mean())) < 0.02
    assert null.max() < affinity(rdms)[0, 0, 1]


@pytest.mark.parametrize(
    "draw",
    [
        lambda rdms, seed: bootstrap_affinity(rdms, resamples=3, seed=seed),
        lambda rdms, seed: permutation_null(rdms, permutations=3, seed=seed),
    ],
)
def test_draws_depend_on_the_seed_alone(draw: Callable[[Tensor, int], Tensor]) -> None:
    rdms = _rdms(2, 2, 15)
    assert torch.equal(draw(rdms, 0), draw(rdms, 0))
    assert not torch.equal(draw(rdms, 0), draw(rdms, 1))
