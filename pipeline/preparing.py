"""A data set in its native layout -> Arrow shards of one size, with compressed images and labels, made in parallel.

Which split a row falls on depends on its group and the seed alone, and what a shard holds on its rows alone: the same
input gives the same bytes whatever the number of processes.
"""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from models.spec import Column
from pipeline.artifacts import DatasetManifest, digest, digest_files, shards
from pipeline.config import Config, Machine, root_of
from pipeline.datasets import DATASETS, SPLITS, BadExample, Row, Source, SourceSettings
from pipeline.encoding import LAYOUTS, encode, jpeg, resize

ROWS_PER_SHARD = 256
SHOWN = 5  # bad rows named in a message

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class _Unit:
    """One shard's work: rows of one split, and where they go."""

    source: Source
    rows: Sequence[Row]
    path: Path
    size: tuple[int, int]
    quality: int


@dataclass(frozen=True, kw_only=True)
class _Done:
    count: int
    sums: np.ndarray  # [2, 3]: sum and sum of squares of the images' channels in 0..1, over all pixels
    classes: Mapping[str, Counter[int]]
    bad: Sequence[str]


def open_source(name: str, config: Config, machine: Machine) -> Source:
    """Map a data set's settings to its reader. ValueError where its folder is not what the reader expects."""
    settings = config.datasets[name]
    return DATASETS[settings.reader](
        SourceSettings(
            root=root_of(name, config, machine), images=settings.images, seed=config.seed, size=settings.size
        )
    )


def declare(name: str, config: Config, source: Source) -> DatasetManifest:
    """What is known of a data set before any image is read: columns and size, enough to check every task."""
    return DatasetManifest(
        name=name,
        counts={},
        size=config.datasets[name].size,
        columns=dict(source.columns()),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        fingerprint="",
        licence=source.licence,
    )


def prepare_dataset(
    manifest: DatasetManifest, source: Source, config: Config, machine: Machine, folder: Path, say: Say
) -> DatasetManifest:
    """Write a data set's shards under `folder/<name>/<split>/` and complete its manifest.

    ValueError lists the rows that can't be read, unless `prepare.on_bad` is "skip"; then the manifest counts them.
    """
    name, settings = manifest.name, config.datasets[manifest.name]
    rows = source.rows()
    by_split = assign_splits(rows, val=settings.val, test=settings.test, seed=config.seed)
    units = _units(source, by_split, folder / name, manifest.size, config.prepare.quality)
    done = _run(units, machine.prepare_workers or os.cpu_count() or 1, name, say)
    bad = [line for part in done for line in part.bad]
    if bad and config.prepare.on_bad == "fail":
        listed = "\n  ".join(bad[:SHOWN])
        raise ValueError(
            f"data set {name}: {len(bad)} of {len(rows)} rows are bad; first {min(SHOWN, len(bad))}:\n  {listed}\n"
            "Mend them, or set prepare.on_bad: skip to leave them out"
        )
    if bad:
        say(f"prepare {name}: {len(bad)} of {len(rows)} rows skipped; they are listed in manifest.json")
    columns = _merge_rare(folder, manifest, units, done, settings.min_class_count)
    counts = {
        split: sum(d.count for u, d in zip(units, done, strict=True) if u.path.parent.name == split) for split in SPLITS
    }
    empty = [split for split in SPLITS if not counts[split]]
    if empty:
        raise ValueError(
            f"data set {name}: no {' and no '.join(empty)} images; raise datasets.{name}.val / test or images"
        )
    mean, std = _statistics(
        [d for u, d in zip(units, done, strict=True) if u.path.parent.name == "train"], manifest.size
    )
    content = digest_files(path for split in SPLITS for path in shards(name, split, folder))
    described = {key: [c.layout, list(c.classes), c.scale, c.unit] for key, c in columns.items()}
    return replace(
        manifest,
        counts=counts,
        columns=columns,
        mean=mean,
        std=std,
        fingerprint=digest([content, described]),
        skipped=tuple(bad),
    )


def assign_splits(rows: Sequence[Row], *, val: float, test: float, seed: int) -> dict[str, list[Row]]:
    """Map rows to splits: the official one where there is one; a missing val (or test) is drawn from train by group."""
    official = {row.split for row in rows}
    out: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for row in rows:
        draw = int.from_bytes(hashlib.sha256(f"{seed}:{row.group}".encode()).digest()[:8], "big") / 2**64
        split = row.split or "train"
        if split == "train" and "test" not in official and draw < test:
            split = "test"
        elif split == "train" and "val" not in official and draw >= 1 - val:
            split = "val"
        out[split].append(row)
    return out


def _units(
    source: Source, by_split: Mapping[str, list[Row]], folder: Path, size: tuple[int, int], quality: int
) -> list[_Unit]:
    units = []
    for split, rows in by_split.items():
        (folder / split).mkdir(parents=True)
        for part, start in enumerate(range(0, len(rows), ROWS_PER_SHARD)):
            path, chunk = folder / split / f"part-{part:05d}.arrow", rows[start : start + ROWS_PER_SHARD]
            units.append(_Unit(source=source, rows=chunk, path=path, size=size, quality=quality))
    return units


def _run(units: Sequence[_Unit], workers: int, name: str, say: Say) -> list[_Done]:
    """Store all units, saying how far it is; the results are in the units' order."""
    started, total, finished = time.monotonic(), sum(len(unit.rows) for unit in units), 0
    with ProcessPoolExecutor(min(workers, max(1, len(units))), mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_store, unit) for unit in units]
        order = dict(zip(futures, units, strict=True))
        for future in as_completed(futures):
            future.result()
            finished += len(order[future].rows)
            left = (time.monotonic() - started) * (total - finished) / finished
            say(f"prepare {name}: {finished} of {total} images, {left:.0f} s left")
        return [future.result() for future in futures]


def _store(unit: _Unit) -> _Done:
    """Load, resize, encode and write the rows of one shard."""
    columns = dict(unit.source.columns())
    records: list[dict[str, Any]] = []
    bad: list[str] = []
    sums = np.zeros((2, 3))
    for row in unit.rows:
        try:
            example = resize(unit.source.load(row), columns, unit.size)
            labels = {name: encode(name, column, example.labels.get(name)) for name, column in columns.items()}
        except BadExample as error:
            bad.append(f"{row.origin}: {error}")
            continue
        records.append({"id": row.id, "image": jpeg(example.image, unit.quality), **labels})
        pixels = example.image.reshape(-1, 3) / 255
        sums += np.stack([pixels.sum(0), np.square(pixels).sum(0)])
    schema = pa.schema(
        [("id", pa.string()), ("image", pa.binary()), *((name, LAYOUTS[c.layout].arrow) for name, c in columns.items())]
    )
    _write(unit.path, pa.Table.from_pylist(records, schema=schema))
    classes = {
        name: Counter(record[name] for record in records if record[name] is not None)
        for name, column in columns.items()
        if column.layout == "class"
    }
    return _Done(count=len(records), sums=sums, classes=classes, bad=bad)


def _write(path: Path, table: pa.Table) -> None:
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table.combine_chunks())


def _merge_rare(
    folder: Path, manifest: DatasetManifest, units: Sequence[_Unit], done: Sequence[_Done], least: int
) -> dict[str, Column]:
    """Drop classes with fewer than `least` training images; their rows are unlabelled in that column from then on."""
    columns = dict(manifest.columns)
    kept: dict[str, list[int]] = {}
    for name, column in columns.items():
        if column.layout != "class" or least == 0:
            continue
        seen = Counter[int]()
        for unit, part in zip(units, done, strict=True):
            if unit.path.parent.name == "train":
                seen.update(part.classes[name])
        kept[name] = [index for index in range(len(column.classes)) if seen[index] >= least]
        columns[name] = replace(column, classes=tuple(column.classes[index] for index in kept[name]))
    if kept:
        for path in (path for split in SPLITS for path in shards(manifest.name, split, folder)):
            with pa.OSFile(str(path)) as file:
                table = pa.ipc.open_file(file).read_all()
            for name, indices in kept.items():
                moved = {old: new for new, old in enumerate(indices)}
                cells = pa.array([moved.get(value) for value in table[name].to_pylist()], pa.int32())
                table = table.set_column(table.schema.get_field_index(name), name, cells)
            _write(path, table)
    return columns


def _statistics(done: Sequence[_Done], size: tuple[int, int]) -> tuple[Any, Any]:
    pixels = max(1, sum(part.count for part in done)) * size[0] * size[1]
    mean, square = np.sum([part.sums for part in done], axis=0) / pixels
    std = np.sqrt(np.maximum(square - np.square(mean), 1e-8))
    return tuple(round(float(value), 6) for value in mean), tuple(round(float(value), 6) for value in std)
