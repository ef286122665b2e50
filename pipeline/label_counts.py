"""Labels of a data set -> how often each class occurs: numbers that grow with the classes, not with the images."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from models.spec import Column


def no_counts(columns: Mapping[str, Column]) -> dict[str, np.ndarray]:
    """Zeros int64 [1, C] for each column with classes to count; [2, C] for flags: how often set, how often known."""
    return {
        name: np.zeros((2 if column.layout == "flags" else 1, len(column.classes)), dtype=np.int64)
        for name, column in columns.items()
        if column.layout in COUNTERS
    }


def count(totals: Mapping[str, np.ndarray], columns: Mapping[str, Column], labels: Mapping[str, Any]) -> None:
    """Add one example's labels, as they are stored, to the counts of `no_counts`."""
    for name, total in totals.items():
        if (label := labels.get(name)) is not None:
            COUNTERS[columns[name].layout](total, label)


def shares(counts: np.ndarray) -> tuple[float, ...]:
    """Counts of a column -> `Column.shares`; a flag that is known of no image has 0."""
    of = counts[1] if len(counts) == 2 else counts.sum()
    return tuple((counts[0] / np.maximum(of, 1)).round(6).tolist()) if np.any(of) else ()


def _class(total: np.ndarray, label: int) -> None:
    total[0, label] += 1


def _flags(total: np.ndarray, label: Sequence[int]) -> None:
    flags = np.asarray(label)
    total += [flags == 1, flags >= 0]


def _mask(total: np.ndarray, label: np.ndarray) -> None:
    total[0] += np.bincount(np.asarray(label, dtype=np.uint8).ravel(), minlength=256)[: total.shape[1]]


COUNTERS: dict[str, Callable[[np.ndarray, Any], None]] = {"class": _class, "flags": _flags, "mask": _mask}
