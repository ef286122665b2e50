"""RSA against what one would use instead.    python -m benchmarks.rsa    (about 6 minutes, 2 without rsatoolbox)

Dissimilarities of the images' features beside numpy.corrcoef, a loop over scipy's pearsonr and rsatoolbox; Spearman's
correlation of the RDMs beside a loop over scipy's spearmanr and rsatoolbox. A loop runs over some of its pairs alone
and its time is scaled to all of them. Errors are the largest ones, against float64. rsatoolbox is left out where it
isn't installed; `make bench` installs it.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import combinations, islice
from typing import Any

import numpy as np
import torch
from scipy import stats
from threadpoolctl import threadpool_limits
from torch import Tensor

from benchmarks.lines import Goal, Line, faster, figure, note, show
from benchmarks.timing import in_turn
from models.rsa import affinity, rdm

FEATURES = ((500, 20_000, 5), (1000, 20_000, 3), (2000, 20_000, 1))  # images, features, rounds
TASKS = ((500, 5, 5), (500, 40, 3))  # images, tasks, rounds
PAIRS = 100
OURS = "ours"
TOOLBOX = "rsatoolbox"
ERROR = Goal(most=5e-6)
RDM_GOALS = {"numpy.corrcoef": Goal(least=1.3), TOOLBOX: Goal(least=20)}
AFFINITY_GOALS = {"scipy's spearmanr": Goal(least=13), TOOLBOX: Goal(least=8)}

Ways = Mapping[str, Callable[[], np.ndarray]]


def lines() -> Iterator[Line]:
    torch.set_num_threads(1)
    if not _has_toolbox():
        note("rsatoolbox is not installed and left out: `make bench` installs it")
    with threadpool_limits(1):  # numpy's products have threads of their own
        for images, number, rounds in FEATURES:
            features = torch.randn(images, number, generator=torch.Generator().manual_seed(0)).sub(1).relu()
            yield from _rdm_lines(features, rounds)
        for images, tasks, rounds in TASKS:
            yield from _affinity_lines(_related_rdms(images, tasks), rounds)


def _rdm_lines(features: Tensor, rounds: int) -> Iterator[Line]:
    images, number = features.shape
    rows = features.numpy()
    ways = {
        OURS: lambda: rdm(features).numpy(),
        "numpy.corrcoef": lambda: 1 - np.corrcoef(rows),
        "scipy's pearsonr": lambda: _loop(rows, _pearsonr),
    }
    if _has_toolbox():
        ways[TOOLBOX] = lambda: _toolbox_rdm(rows)
    exact = 1 - _correlation(rows)
    yield from _compared(f"RDM of {images} images × {number:,} features", ways, exact, rounds, RDM_GOALS)


def _affinity_lines(rdms: Tensor, rounds: int) -> Iterator[Line]:
    tasks, images, _ = rdms.shape
    upper = np.triu_indices(images, k=1)
    triangles = np.stack([matrix[upper] for matrix in rdms.numpy()])
    ways = {
        OURS: lambda: affinity(rdms[:, None])[0].numpy(),
        "scipy's spearmanr": lambda: _loop(triangles, _spearmanr),
    }
    if _has_toolbox():
        ways[TOOLBOX] = lambda: _toolbox_spearman(triangles)
    exact = _correlation(stats.rankdata(triangles, axis=1))
    yield from _compared(f"affinity of {tasks} RDMs of {images} images", ways, exact, rounds, AFFINITY_GOALS)


def _compared(what: str, ways: Ways, exact: np.ndarray, rounds: int, goals: Mapping[str, Goal]) -> Iterator[Line]:
    """How many times as fast ours is as each other way, and its error."""
    results: dict[str, np.ndarray] = {}
    times = in_turn({name: partial(_keep, results, name, way) for name, way in ways.items()}, rounds)
    pairs = len(exact) * (len(exact) - 1) // 2
    for name in ways:
        if name == OURS:
            error = float(np.abs(results[name] - exact).max())
            yield figure(6, f"error, {what}", "float64", [error], "", ERROR)
            continue
        in_loop = name.startswith("scipy")
        run = min(PAIRS, pairs) if in_loop else pairs
        beside = f"{name}, pair by pair ({run} of {pairs:,} pairs timed)" if in_loop else name
        yield faster(6, what, beside, times[OURS], times[name].scaled(pairs / run), goal=goals.get(name))


def _has_toolbox() -> bool:
    return find_spec(TOOLBOX) is not None


def _keep(results: dict[str, np.ndarray], name: str, way: Callable[[], np.ndarray]) -> None:
    results[name] = way()


def _correlation(rows: np.ndarray) -> np.ndarray:
    """Pearson in float64, by other means than any of the ways."""
    centred = rows.astype(np.float64) - rows.mean(1, dtype=np.float64, keepdims=True)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    return unit @ unit.T


def _loop(rows: np.ndarray, compare: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
    """What one writes by hand, for the first pairs of rows; NaN for the others."""
    result = np.full((len(rows), len(rows)), np.nan)
    for first, second in islice(combinations(range(len(rows)), 2), PAIRS):
        result[first, second] = result[second, first] = compare(rows[first], rows[second])
    return result


def _pearsonr(left: np.ndarray, right: np.ndarray) -> float:
    result: Any = stats.pearsonr(left, right)
    return 1 - result.statistic


def _spearmanr(left: np.ndarray, right: np.ndarray) -> float:
    result: Any = stats.spearmanr(left, right)
    return result.statistic


def _toolbox_rdm(rows: np.ndarray) -> np.ndarray:
    dataset = import_module("rsatoolbox.data").Dataset(rows)
    return import_module("rsatoolbox.rdm").calc_rdm(dataset, method="correlation").get_matrices()[0]


def _toolbox_spearman(triangles: np.ndarray) -> np.ndarray:
    module = import_module("rsatoolbox.rdm")
    rdms = module.RDMs(triangles)
    return module.compare(rdms, rdms, method="spearman")


def _related_rdms(images: int, tasks: int) -> Tensor:
    """RDMs [T, K, K] of features that the tasks have half in common."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(images, 64, generator=generator)
    return torch.stack([rdm(shared + torch.randn(images, 64, generator=generator)) for _ in range(tasks)])


if __name__ == "__main__":
    show(lines())
