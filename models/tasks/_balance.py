"""Weights against class imbalance, from the shares that classes have in the training labels.

A weight is proportional to share^-power, and the mean weight of the labelled elements is 1, so a loss keeps its size.
With a power of 1 every class counts as much as any other, with 0.5 imbalance is evened out in part. What no training
label has weighs 1, which nothing will ever show.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.spec import TaskSpec


def class_weights(spec: TaskSpec, power: float) -> tuple[float, ...]:
    """Map a task's column to the weight of each class; to nothing for a power of 0."""
    if not power:
        return ()
    return _weights(_shares(spec), power)


def flag_weights(spec: TaskSpec, power: float) -> tuple[tuple[float, ...], ...]:
    """Map a task's column of flags to each flag's two weights, of no and of yes; to nothing for a power of 0."""
    if not power:
        return ()
    return tuple(_weights((1 - yes, yes), power) for yes in _shares(spec))


def weigh(target: Tensor, labelled: Tensor, weights: Sequence[float]) -> Tensor:
    """Map class indices to the weights of these elements, by class where there are any; unlabelled ones weigh 0."""
    if not weights:
        return labelled.float()
    return torch.tensor(weights, device=target.device)[torch.where(labelled, target, 0).long()] * labelled


def _weights(shares: Sequence[float], power: float) -> tuple[float, ...]:
    weights = [share**-power if share else 0.0 for share in shares]
    mean = sum(share * weight for share, weight in zip(shares, weights, strict=True)) / sum(shares)
    return tuple(weight / mean if weight else 1.0 for weight in weights)


def _shares(spec: TaskSpec) -> tuple[float, ...]:
    """Those of the column's classes. ValueError where they are not known."""
    if not spec.column.shares:
        raise ValueError(
            f"task {spec.name!r}: option balance: column {spec.column_name!r} of {spec.dataset!r} does not know the"
            " shares of its classes; run `prepare` again, or leave balance out"
        )
    return spec.column.shares
