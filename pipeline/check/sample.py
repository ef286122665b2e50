"""A data set's rows -> those that are read: all of them, or an even part of every split where that takes too long."""

import time
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from pipeline.check.rows import look
from pipeline.datasets import Row, Source

T = TypeVar("T")
SECONDS = 15.0  # of one processor, that reading may take
STEPS = (50, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000)  # rows that are read where not all are
LEAST = 25  # rows read of a split, however small a part of the set it is
PROBED = 5  # rows whose reading is timed


def pick(source: Source, splits: Mapping[str, Sequence[Row]]) -> tuple[list[tuple[str, Row]], float]:
    """Map rows by split to those to read, with their splits, and the seconds of one processor that this may take."""
    rows = [(split, row) for split, some in splits.items() for row in some]
    each = _seconds_a_row(source, [row for _, row in spread(rows, PROBED)])
    allowed = SECONDS / max(each, 1e-9)
    if len(rows) <= max(allowed, STEPS[0]):
        return rows, each * len(rows)
    wanted = max((step for step in STEPS if step <= allowed), default=STEPS[0])
    picked: list[tuple[str, Row]] = []
    for split, some in splits.items():
        share = max(round(wanted * len(some) / len(rows)), min(LEAST, len(some)))
        picked += [(split, row) for row in spread(some, share)]
    return picked, each * len(picked)


def spread(items: Sequence[T], count: int) -> list[T]:
    """Items -> `count` of them at even distances, or all where there are fewer."""
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def _seconds_a_row(source: Source, rows: Sequence[Row]) -> float:
    columns, times = dict(source.columns()), []
    for row in rows:
        began = time.process_time()
        look(source, columns, source.settings.size, [row])
        times.append(time.process_time() - began)
    return float(np.median(times)) if times else 0.0
