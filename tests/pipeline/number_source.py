"""A data set of made-up rows with every layout; free of torch, so that processes that read it start fast."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.spec import Column
from pipeline.datasets import BadExample, Example, Row, Source, SourceSettings

SIZE = (32, 32)
COLUMNS = {
    "kind": Column(layout="class", classes=("a", "b", "c", "d")),
    "flags": Column(layout="flags", classes=("x", "y", "z")),
    "mask": Column(layout="mask", classes=("none", "one", "two")),
    "field": Column(layout="field", scale=0.01, unit="m"),
    "ids": Column(layout="instances"),
    "points": Column(layout="points", classes=("p", "q")),
    "boxes": Column(layout="boxes", classes=("r", "s")),
}


class Numbers(Source):
    """Made-up rows with every layout; example i is a function of i. `bad`: rows that can't be read, `out`: label 9."""

    licence = "none"

    def __init__(
        self, rows: Sequence[Row], *, bad: Sequence[str] = (), out: Sequence[str] = (), size: tuple[int, int] = SIZE
    ) -> None:
        super().__init__(SourceSettings(root=None, images=None, seed=0, size=size))
        self.listed, self.bad, self.out = list(rows), set(bad), set(out)

    def columns(self) -> Mapping[str, Column]:
        return COLUMNS

    def rows(self) -> Sequence[Row]:
        return self.listed

    def load(self, row: Row) -> Example:
        if row.id in self.bad:
            raise BadExample(f"images/{row.id}.png: not an image")
        labels = labels_of(int(row.id), self.settings.size)
        if row.id in self.out:
            labels["kind"] = 9
        image = np.full((*self.settings.size, 3), int(row.id) % 256, dtype=np.uint8)
        return Example(image=image, labels=labels)


def labels_of(index: int, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    """Example `index`'s labels; each column is null in some rows."""
    draw = np.random.default_rng(index)
    points = np.concatenate([draw.uniform(0, size[1], (index % 4, 2)), draw.integers(0, 2, (index % 4, 1))], 1)
    corners = np.sort(draw.uniform(0, size[1], (index % 3, 2, 2)), axis=1).reshape(-1, 4)
    labels = {
        "kind": index % 3 if index % 10 else 3,
        "flags": draw.integers(-1, 2, 3).tolist(),
        "mask": draw.choice([0, 1, 2, 255], size).astype(np.uint8),
        "field": draw.uniform(0, 600, size),
        "ids": draw.integers(0, 256, size).astype(np.uint8),
        "points": points.astype(np.float32),
        "boxes": np.concatenate([corners, draw.integers(0, 2, (index % 3, 1))], 1).astype(np.float32),
    }
    return {name: None if (index + at) % 8 == 7 else value for at, (name, value) in enumerate(labels.items())}


def rows(count: int, **changes: Any) -> list[Row]:
    return [Row(**{"id": str(i), "origin": f"list.csv row {i + 1}", "group": str(i), **changes}) for i in range(count)]
