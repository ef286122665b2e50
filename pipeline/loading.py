"""Arrow shards -> batches: the same global batches for any number of ranks, loader workers and interruptions.

A batch comes from one data set (MTHL's two-step sampling): draw -> data set -> rows, all drawn from the seed and the
draw's number alone. A step holds one draw, of which a rank takes every world-th row, or several, of which a rank takes
every world-th. Splits that fit in memory are decoded once.
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
BLOCK = 4096  # draws of which the data sets are chosen at once


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
    """Number of a draw -> what this rank sees of that draw's batch; a pure function of (seed, number).

    `weights` are the chances of the data sets (paper MTHL: two-step sampling), `batches` their images in a draw; each
    data set is walked through in a fresh order as often as it is drawn. Step s holds `draws` of them, from s x draws
    on: ranks split the batch of a single one, and share out several, which they see whole.
    """

    splits: Sequence[Split]
    weights: Sequence[float]
    batches: Sequence[int]
    augment: Augment
    seed: int
    draws: int = 1
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.draws > 1 and self.draws % self.world:
            raise ValueError(
                f"moe.ranks {self.draws}: the {self.world} workers of machine.yaml can't share them out evenly; set"
                f" workers to a divisor of {self.draws}, or moe.ranks to a multiple of {self.world}"
            )
        for split, batch in zip(self.splits, self.batches, strict=True):
            key = f"datasets.{split.dataset}.batch (train.batch where it is not set)"
            if self.draws == 1 and batch < self.world:
                raise ValueError(f"a batch of {batch} is smaller than the {self.world} workers of machine.yaml: {key}")
            if len(split) < batch:
                raise ValueError(
                    f"data set {split.dataset}: {len(split)} training images are fewer than its batch of {batch}; lower"
                    f" {key} or take more images"
                )

    @property
    def steps_per_epoch(self) -> int:
        """One epoch draws as many batches as all data sets hold whole ones, in whole steps."""
        whole = sum(len(split) // batch for split, batch in zip(self.splits, self.batches, strict=True))
        return max(1, whole // self.draws)

    def of_step(self, step: int) -> range:
        """The numbers of a step's draws that this rank sees."""
        first = self.rank if self.draws > 1 else 0
        return range(step * self.draws + first, (step + 1) * self.draws, self.world)

    def __getitem__(self, number: int) -> Batch:
        which, turn = self._draw(number)
        split, count = self.splits[which], self.batches[which]
        walk, place = divmod(turn, len(split) // count)
        order = torch.randperm(len(split), generator=_generator(self.seed, 1, which, walk))
        rows = order[place * count : (place + 1) * count]
        windows = draw_windows(count, split.size, self.augment, _generator(self.seed, 2, number))
        mine = slice(self.rank, None, self.world) if self.draws == 1 else slice(None)
        batch = split.read(rows[mine].tolist())
        images, labels = augment(batch.images, batch.labels, split.columns, windows[mine])
        return Batch(dataset=split.dataset, images=images, labels=labels)

    def _draw(self, number: int) -> tuple[int, int]:
        """Which data set a draw takes, and how often it was taken before."""
        one = len(self.splits) == 1
        return (0, number) if one else _draws(tuple(self.weights), self.seed, number // BLOCK)[number]

    def loader(self, first: int, last: int, *, workers: int, pin: bool) -> DataLoader[Batch]:
        """Batches of steps first..last-1 in order; stopped and started again anywhere, it gives the same ones."""
        return DataLoader(
            self,
            batch_size=None,
            sampler=[number for step in range(first, last) for number in self.of_step(step)],
            num_workers=workers,
            pin_memory=pin,
            persistent_workers=False,
        )


@lru_cache(maxsize=2)
def _draws(weights: tuple[float, ...], seed: int, block: int) -> list[tuple[int, int]]:
    """The data set of every draw up to the end of a block of draws, and how often it was taken before."""
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
