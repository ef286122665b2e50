"""Classes with few training images are dropped: their rows are unlabelled from then on, the others move up."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from models.spec import Column
from pipeline.artifacts import digest_file


def frequent(columns: Mapping[str, Column], counts: Mapping[str, np.ndarray], least: int) -> dict[str, list[int]]:
    """For each column that loses classes, the indices of those that at least `least` training images have.

    `counts` are those of `label_counts`.
    """
    kept = {
        n: np.flatnonzero(counts[n][0] >= least).tolist() for n, column in columns.items() if column.layout == "class"
    }
    return {name: indices for name, indices in kept.items() if len(indices) < len(columns[name].classes)}


def with_classes(column: Column, kept: Sequence[int]) -> Column:
    """A column with the classes of these indices alone."""
    return replace(column, classes=tuple(column.classes[index] for index in kept))


def place(shard: Path, target: Path, kept: Mapping[str, Sequence[int]], sha256: str) -> str:
    """Give a finished shard its place among the results, under a second name where nothing changes; give its sha256.

    Rewriting takes one record batch at a time.
    """
    if kept:
        _rewrite(shard, target, {name: {old: new for new, old in enumerate(some)} for name, some in kept.items()})
        return digest_file(target)
    try:
        os.link(shard, target)
    except OSError:  # a file system without links
        shutil.copyfile(shard, target)
    return sha256


def _rewrite(shard: Path, target: Path, moved: Mapping[str, Mapping[int, int]]) -> None:
    with (
        pa.memory_map(str(shard)) as file,
        pa.ipc.open_file(file) as stored,
        pa.ipc.new_file(str(target), stored.schema) as writer,
    ):
        for number in range(stored.num_record_batches):
            batch = stored.get_batch(number)
            for name, indices in moved.items():
                cells = pa.array([indices.get(value) for value in batch[name].to_pylist()], pa.int32())
                batch = batch.set_column(batch.schema.get_field_index(name), name, cells)
            writer.write_batch(batch)
