"""How far two networks' Δ_MTL must be apart on test before it is more than the chance of training."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from statistics import NormalDist, mean, variance

from pipeline.report.network import Network
from pipeline.report.study import Study

LEVEL = 0.95  # of the intervals
TWINS = "split"  # the tree whose networks are the single-task ones, trained together


@dataclass(frozen=True, kw_only=True)
class Noise:
    """A lead counts from `factor` · sqrt(1/n + 1/m) points of Δ_MTL on, with n and m seeds; without factor, never."""

    factor: float | None
    words: str

    def least_lead(self, one: int, other: int) -> float | None:
        """Map the two networks' numbers of seeds to the points from which on a lead counts."""
        return None if self.factor is None else self.factor * sqrt(1 / one + 1 / other)


def noise_of(study: Study, networks: Sequence[Network]) -> Noise:
    """Map networks to their noise: over seeds, or with one seed from networks that were trained twice."""
    deltas = [values for network in networks if len(values := study.deltas(network)) > 1]
    if deltas:
        return _over_seeds(deltas)
    for twins in (network for network in study.trees if network.name == TWINS):
        changes = [row.change(twins.test[task][0]) for task, row in study.baselines.items()]
        if all(map(isfinite, changes)):
            return _between_twins(changes)
    words = "One seed each, and no networks that were trained twice: nothing says how large noise is."
    return Noise(factor=None, words=f"{words} No lead counts.")


def _over_seeds(deltas: Sequence[Sequence[float]]) -> Noise:
    """The standard deviation pooled over networks, times Student's t."""
    freedom = sum(len(values) - 1 for values in deltas)
    pooled = sqrt(sum((len(values) - 1) * variance(values) for values in deltas) / freedom)
    from scipy import stats  # loads slowly, and most studies have one seed

    factor = float(stats.t.ppf(0.5 + LEVEL / 2, freedom)) * pooled
    words = (
        f"Noise: from seed to seed Δ_MTL has a standard deviation of {pooled:.1f} points (pooled over {len(deltas)}"
        f" networks, {freedom} degrees of freedom). A lead counts from {factor:.1f} · √(1/n + 1/m) points on, with n"
        f" and m seeds ({LEVEL:.0%})."
    )
    return Noise(factor=factor, words=words)


def _between_twins(changes: Sequence[float]) -> Noise:
    """Each task is a difference by chance alone; their mean may be small by luck, so their size counts as well."""
    delta = abs(mean(changes))
    size = sqrt(mean(change**2 for change in changes))
    points = max(delta, NormalDist().inv_cdf(0.5 + LEVEL / 2) * size / sqrt(len(changes)))
    words = (
        f"Noise: one seed each. The single-task networks and the fully split tree are the same networks, trained twice;"
        f" their Δ_MTL differs by {delta:.1f} points, their tasks by {size:.1f} % (root mean square). Leads below"
        f" {points:.1f} points cannot be told from chance; larger ones may still not hold with another seed."
    )
    return Noise(factor=points / sqrt(2), words=words)
