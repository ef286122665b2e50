"""Arrow shards -> batches: the same global batches for any number of ranks, loader workers and interruptions.

A batch comes from one data set (MTHL's two-step sampling): step -> data set -> rows, all drawn from the seed and the
step alone. A rank takes every world-th row of the global batch. Splits that fit in memory are decoded once.
B images, H W height and width.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from models.spec import Column
from pipeline.augment import augment, draw_windows
from pipeline.config import Augment
from pipeline.decoding import DECODERS, MAP_BYTES, decode_rgb

CACHE_BYTES = 512 << 20
BLOCK = 4096  # steps whose data sets are drawn at once


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images uint8 [B, 3, H, W] of one data set and their stored labels by column (see `models.spec.Column`)."""

    dataset: str
    images: Tensor
    labels: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.images)

    def pin_memory(self) -> "Batch":
        labels = {name: raw.pin_memory() for name, raw in self.labels.items()}
        return Batch(dataset=self.dataset, images=self.images.pin_memory(), labels=labels)

    def to(self, device: torch.device) -> "Batch":
        labels = {name: raw.to(device, non_blocking=True) for name, raw in self.labels.items()}
        return Batch(dataset=self.dataset, images=self.images.to(device, non_blocking=True), labels=labels)


@dataclass(kw_only=True)
class Split:
    """One split of one data set, read by row number. Only the named columns are decoded."""

    dataset: str
    paths: Sequence[Path]
    size: tuple[int, int]
    columns: Mapping[str, Column]
    cache_bytes: int = CACHE_BYTES
    _cache: Batch | None = field(default=None, repr=False)

    @cached_property
    def table(self) -> pa.Table:
        return pa.concat_tables(pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in self.paths)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("table", "_cache")} | {"_cache": None}

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def ids(self) -> list[str]:
        return self.table["id"].to_pylist()

    def read(self, rows: Sequence[int]) -> Batch:
        """Map row numbers to a batch, decoded; from memory where the whole split fits there."""
        if self._cache is None and self._decoded_bytes() <= self.cache_bytes:
            self._cache = self._decode(range(len(self)))
        if self._cache is None:
            return self._decode(rows)
        index = torch.as_tensor(rows, dtype=torch.long)
        labels = {name: raw[index] for name, raw in self._cache.labels.items()}
        return Batch(dataset=self.dataset, images=self._cache.images[index], labels=labels)

    def _decoded_bytes(self) -> int:
        maps = sum(MAP_BYTES.get(column.layout, 0) for column in self.columns.values())
        return len(self) * self.size[0] * self.size[1] * (3 + maps)

    def _decode(self, rows: Sequence[int]) -> Batch:
        picked = self.table.take(list(rows)) if len(rows) < len(self) else self.table
        images = [decode_rgb(cell) for cell in picked["image"]]
        labels = {name: self._column(picked[name], name, column) for name, column in self.columns.items()}
        return Batch(dataset=self.dataset, images=torch.stack(images), labels=labels)

    def _column(self, cells: pa.ChunkedArray, name: str, column: Column) -> Tensor:
        return DECODERS[column.layout](cells, column, self.size, self._widths.get(name, 1))

    @cached_property
    def _widths(self) -> dict[str, int]:
        """The largest number of points or boxes of an image, so that all batches of a split have one shape."""
        entry = {"points": 3, "boxes": 5}
        listed = {name: entry[column.layout] for name, column in self.columns.items() if column.layout in entry}
        lengths = {name: self.table[name].combine_chunks().value_lengths().fill_null(0).to_numpy() for name in listed}
        return {name: max(1, int(lengths[name].max()) // listed[name]) for name in listed}


@dataclass(frozen=True, kw_only=True)
class Feed(Dataset[Batch]):
    """Step number -> this rank's part of that step's global batch; a pure function of (seed, step).

    `weights` are the chances of the data sets (paper MTHL: two-step sampling); each data set is walked through in a
    fresh order as often as it is drawn.
    """

    splits: Sequence[Split]
    weights: Sequence[float]
    batch: int
    augment: Augment
    seed: int
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.batch < self.world:
            raise ValueError(f"train.batch {self.batch} is smaller than the {self.world} workers of machine.yaml")
        for split in self.splits:
            if len(split) < self.batch:
                raise ValueError(
                    f"data set {split.dataset}: {len(split)} training images are fewer than train.batch {self.batch};"
                    " lower train.batch or take more images"
                )

    @property
    def steps_per_epoch(self) -> int:
        """One epoch draws as many batches as all data sets hold whole ones."""
        return sum(len(split) // self.batch for split in self.splits)

    def __getitem__(self, step: int) -> Batch:
        which, turn = self._draw(step)
        split = self.splits[which]
        per_walk = len(split) // self.batch
        walk, place = divmod(turn, per_walk)
        order = torch.randperm(len(split), generator=_generator(self.seed, 1, which, walk))
        rows = order[place * self.batch : (place + 1) * self.batch]
        windows = draw_windows(self.batch, split.size, self.augment, _generator(self.seed, 2, step))
        mine = slice(self.rank, None, self.world)
        batch = split.read(rows[mine].tolist())
        images, labels = augment(batch.images, batch.labels, split.columns, windows[mine])
        return Batch(dataset=split.dataset, images=images, labels=labels)

    def _draw(self, step: int) -> tuple[int, int]:
        """Which data set a step draws, and how often it was drawn before."""
        return (0, step) if len(self.splits) == 1 else _draws(tuple(self.weights), self.seed, step // BLOCK)[step]

    def loader(self, first: int, last: int, *, workers: int, pin: bool) -> DataLoader[Batch]:
        """Batches of steps first..last-1 in order; stopped and started again anywhere, it gives the same ones."""
        return DataLoader(
            self,
            batch_size=None,
            sampler=range(first, last),
            num_workers=workers,
            pin_memory=pin,
            persistent_workers=False,
        )


@lru_cache(maxsize=2)
def _draws(weights: tuple[float, ...], seed: int, block: int) -> list[tuple[int, int]]:
    """The data set of every step up to the end of a block of steps, and how often it was drawn before."""
    chances = torch.tensor(weights, dtype=torch.float64)
    turns = [0] * len(weights)
    draws = []
    for at in range(block + 1):
        picks = torch.multinomial(chances, BLOCK, replacement=True, generator=_generator(seed, 0, at))
        for which in picks.tolist():
            draws.append((which, turns[which]))
            turns[which] += 1
    return draws


def in_order(split: Split, batch: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
    """Batches of a split's rows in stored order, unaugmented; a rank sees every world-th row."""
    rows = range(rank, len(split), world)
    for start in range(0, len(rows), batch):
        yield split.read(rows[start : start + batch])


def _generator(*words: int) -> torch.Generator:
    """A generator for one named place in a run; nearby words give unrelated streams (splitmix64)."""
    state = 0
    for word in words:
        state = (state ^ (word + 0x9E3779B97F4A7C15)) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return torch.Generator().manual_seed(state & 0x7FFFFFFFFFFFFFFF)
