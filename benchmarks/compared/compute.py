"""Networks to train -> epochs at which they cost the same: FLOPs of training are counted, never timed."""

from collections.abc import Callable, Mapping, Sequence

from pipeline.artifacts import DatasetManifest
from pipeline.jobs import TrainJob
from pipeline.plan_costs import ImageCosts, job_flops
from pipeline.plan_jobs import Planned

TOLERANCE = 0.1  # how far a network's compute may lie from what all are to have


def training_flops(
    jobs: Sequence[TrainJob], manifests: Mapping[str, DatasetManifest], costs: Mapping[str, ImageCosts]
) -> float:
    """Map jobs to the FLOPs of training and evaluating all of them; routers are left out, as in the plan."""
    found = [job_flops(Planned(stage="", label="", job=job), manifests, costs) for job in jobs]
    known = [flops for flops in found if flops is not None]
    assert len(known) == len(found), "the data sets are prepared, so their images are counted"
    return sum(known)


def epochs_for(target: float, cost: Callable[[int], float]) -> int:
    """Map a compute and the cost of so many epochs, which rises evenly, to the number nearest it; at least one."""
    first = cost(1)
    return max(1, 1 + round((target - first) / (cost(2) - first)))


def check_equal(target: float, spent: Mapping[str, float]) -> None:
    """ValueError where a network's compute is not the others': whole epochs are too coarse for it."""
    wrong = [f"{name} {flops / target:.2f}x" for name, flops in spent.items() if abs(flops / target - 1) > TOLERANCE]
    if wrong:
        raise ValueError(
            f"training compute differs by more than {TOLERANCE:.0%} of that of the single-task networks:"
            f" {', '.join(wrong)}; raise train.epochs, so that whole epochs come nearer"
        )
