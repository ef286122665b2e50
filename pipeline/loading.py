"""Arrow shards -> batches: the same global batches for any number of ranks, loader workers and interruptions.

A batch comes from one data set (MTHL's two-step sampling): draw -> data set -> rows, all drawn from the seed and the
draw's number alone. A step holds one draw, of which a rank takes every world-th row, or several, of which a rank takes
every world-th. Pictures of splits that fit in memory are decoded once, unless they are stored raw; all else is read
from the memory-mapped shards, by the loader's processes where it has some and between training steps where not.
B images, H W height and width.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from models.spec import Column
from pipeline.augment import Windows, augment, draw_windows
from pipeline.config import Augment
from pipeline.decoding import DECODERS, MAP_BYTES, decode_images, is_raw
from pipeline.draws import Draws, generator

CACHE_BYTES = 512 << 20


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

    @cached_property
    def table(self) -> pa.Table:
        return pa.concat_tables(pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in self.paths)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("table", "decoded")}

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def ids(self) -> list[str]:
        return self.table["id"].to_pylist()

    def read(self, rows: Sequence[int]) -> Batch:
        """Map row numbers to a batch, decoded."""
        index = torch.as_tensor(rows, dtype=torch.long)
        image, *labels = (
            self.decoded[name][index] if name in self.decoded else self._decode(name, rows)
            for name in ("image", *self.columns)
        )
        return Batch(dataset=self.dataset, images=image, labels=dict(zip(self.columns, labels, strict=True)))

    @cached_property
    def decoded(self) -> dict[str, Tensor]:
        """The images and maps of the whole split, where they fit in memory; raw images are as fast where they lie."""
        sizes = {name: MAP_BYTES[column.layout] for name, column in self.columns.items() if column.layout in MAP_BYTES}
        if not is_raw(self.table["image"]):
            sizes["image"] = 3
        fits = len(self) * self.size[0] * self.size[1] * sum(sizes.values()) <= self.cache_bytes
        return {name: self._decode(name, range(len(self))) for name in sizes} if fits else {}

    def _decode(self, name: str, rows: Sequence[int]) -> Tensor:
        cells = self.table[name]
        if name == "image":
            return decode_images(cells, rows, self.size)
        column = self.columns[name]
        return DECODERS[column.layout](cells, rows, column, self.size, self._widths.get(name, 1))

    @cached_property
    def _widths(self) -> dict[str, int]:
        """The largest number of points or boxes of an image, so that all batches of a split have one shape."""
        entry = {"points": 3, "boxes": 5}
        listed = {name: entry[column.layout] for name, column in self.columns.items() if column.layout in entry}
        return {name: max(1, _longest(self.table[name]) // listed[name]) for name in listed}


def _longest(lists: pa.ChunkedArray) -> int:
    return max(
        (int(part.value_lengths().fill_null(0).to_numpy().max()) for part in lists.chunks if len(part)), default=0
    )


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
        which, turn = self.order.dataset(number)
        split, count = self.splits[which], self.batches[which]
        rows = self.order.rows(which, len(split), turn, count)
        windows = draw_windows(count, split.size, self.augment, generator(self.seed, 2, number))
        mine = slice(self.rank, None, self.world) if self.draws == 1 else slice(None)
        return _through(windows[mine], split, rows[mine])

    @cached_property
    def order(self) -> Draws:
        return Draws(self.weights, self.seed)

    def loader(self, first: int, last: int, *, workers: int, pin: bool) -> DataLoader[Batch]:
        """Batches of steps first..last-1 in order; stopped and started again anywhere, it gives the same ones."""
        if workers:
            self._load(first * self.draws)
        return DataLoader(
            self,
            batch_size=None,
            sampler=[number for step in range(first, last) for number in self.of_step(step)],
            num_workers=workers,
            pin_memory=pin,
            persistent_workers=False,
        )

    def _load(self, number: int) -> None:
        """Open, decode, compile and count here what the loader's processes share with the one they are forked from."""
        self.order.dataset(number)
        for split in self.splits:
            _through(draw_windows(1, split.size, self.augment, generator(self.seed)), split, [0])


def _through(windows: Windows, split: Split, rows: Sequence[int]) -> Batch:
    """Rows of a split, seen through a window each."""
    batch = split.read(rows)
    images, labels = augment(batch.images, batch.labels, split.columns, windows)
    return Batch(dataset=split.dataset, images=images, labels=labels)


def in_order(split: Split, batch: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
    """Batches of a split's rows in stored order, unaugmented; a rank sees every world-th row."""
    rows = range(rank, len(split), world)
    for start in range(0, len(rows), batch):
        yield split.read(rows[start : start + batch])
