"""A data set in its native layout -> Arrow shards of one size, with compressed images and labels, made in parallel.

Which split a row falls on depends on its group and the seed alone, and what a shard holds on its rows alone: the same
input gives the same bytes whatever the number of processes, on one machine or several. Rows are held as an index, never
as data: 1.3 million images are the design size.
"""

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from models.spec import Column
from pipeline.artifacts import DatasetManifest, fingerprint_of, meaning
from pipeline.config import Config
from pipeline.datasets import SPLITS, Row, Source, SourceSettings, reader_of
from pipeline.label_counts import shares
from pipeline.machine import Machine, root_of
from pipeline.parts import Say, make, plan, settings_of
from pipeline.rare_classes import frequent, place, with_classes
from pipeline.shard_writing import Part, Recipe, Record, shard_of
from pipeline.visibility import strangers

SHOWN = 5  # bad rows named in a message


def open_source(name: str, config: Config, machine: Machine) -> Source:
    """Map a data set's settings to its reader. ValueError where its folder is not what the reader expects."""
    settings = config.datasets[name]
    return reader_of(settings.reader, f"datasets.{name}.reader")(
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
    manifest: DatasetManifest,
    source: Source,
    config: Config,
    machine: Machine,
    folder: Path,
    say: Say,
    kept: Path | None = None,
    progress: Say | None = None,
) -> DatasetManifest:
    """Write a data set's shards under `folder/<name>/<split>/` and complete its manifest.

    Finished parts lie in the folder `kept`, where the next start finds them if this one is stopped; without it, they go
    at the end. ValueError names rows that can't be read, unless `prepare.on_bad` is "skip"; then the manifest does.
    """
    name, settings, rows = manifest.name, config.datasets[manifest.name], source.rows()
    _refuse_doubles(name, rows)
    recipe = _recipe(manifest, source, config, kept or folder / ".kept")
    by_split = assign_splits(rows, val=settings.val, test=settings.test, seed=config.seed)
    planned = plan(recipe, by_split, settings_of(name, config, machine), settings.reader)
    parts = [part for split in SPLITS for part in planned[split]]
    workers = _workers(name, config, machine, recipe, say)
    records = make(recipe, parts, workers, name, config.prepare.on_bad, say, progress or say)
    done = {split: [records[part.key] for part in planned[split]] for split in SPLITS}
    bad = [line for part in parts for line in records[part.key].bad]
    _refuse_bad(name, bad, len(rows), config.prepare.on_bad, say)
    counts = _counts(name, done)
    labels = {key: np.sum([record.labels[key] for record in done["train"]], axis=0) for key in done["train"][0].labels}
    few = frequent(manifest.columns, labels, settings.min_class_count)
    columns = {key: _completed(column, labels.get(key), few.get(key)) for key, column in manifest.columns.items()}
    _refuse_classless(name, config, columns, few)
    _say_missing(name, {key: c for key, c in manifest.columns.items() if key not in few}, labels, say)
    placed = list(_place(recipe, planned, records, folder / name, few))
    if kept is None:
        shutil.rmtree(recipe.folder.parent)
    mean, std = _statistics(done["train"], manifest.size)
    return replace(
        manifest,
        counts=counts,
        columns=columns,
        mean=mean,
        std=std,
        fingerprint=fingerprint_of(placed, meaning(columns)),
        skipped=tuple(bad),
    )


def assign_splits(rows: Sequence[Row], *, val: float, test: float, seed: int) -> dict[str, list[Row]]:
    """Map rows to splits: the official one where there is one; a missing val (or test) is drawn from train by group.

    A row without one goes where others of its group are, so that copies stay on one side, and else to train.
    """
    official = {row.split for row in rows}
    of_group = {row.group: row.split for split in SPLITS for row in rows if row.split == split}
    out: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for row in rows:
        draw = int.from_bytes(hashlib.sha256(f"{seed}:{row.group}".encode()).digest()[:8], "big") / 2**64
        split = row.split or of_group.get(row.group) or "train"
        if split == "train" and "test" not in official and draw < test:
            split = "test"
        elif split == "train" and "val" not in official and draw >= 1 - val:
            split = "val"
        out[split].append(row)
    return out


def _recipe(manifest: DatasetManifest, source: Source, config: Config, folder: Path) -> Recipe:
    return Recipe(
        source=source,
        columns=manifest.columns,
        size=manifest.size,
        store=config.prepare.store,
        quality=config.prepare.quality,
        folder=folder / manifest.name,
    )


def _workers(name: str, config: Config, machine: Machine, recipe: Recipe, say: Say) -> Machine:
    """Where parts are made: on the whole cluster if all of it sees the same folders, else on this machine alone."""
    if not machine.address:
        return machine
    from pipeline.runner import everywhere  # brings torch, into this process alone

    unseen = strangers(
        recipe.folder,
        root_of(name, config, machine),
        lambda function, argument: everywhere(function, argument, machine),
    )
    if not unseen:
        return machine
    (address, folder), *more = unseen.items()
    others = f" (and {len(more)} more)" if more else ""
    say(f"{name}: machine {address}{others} does not see {folder} as it is here: on this machine alone")
    return machine.model_copy(update={"address": None, "prepare_workers": None})


def _refuse_doubles(name: str, rows: Sequence[Row]) -> None:
    """An id names one image, and what is listed twice might be learned from and tested on."""
    seen: dict[str, str] = {}
    for row in rows:
        if row.id in seen:
            raise ValueError(f"data set {name}: two rows have the id {row.id!r}: {seen[row.id]}, and {row.origin}")
        seen[row.id] = row.origin


def _refuse_classless(
    name: str, config: Config, columns: Mapping[str, Column], few: Mapping[str, Sequence[int]]
) -> None:
    learned = {task.column or key for key, task in config.tasks.items() if task.dataset == name}
    if empty := [key for key in few if key in learned and not columns[key].classes]:
        least = config.datasets[name].min_class_count
        raise ValueError(
            f"data set {name}: no class of {empty[0]} has {least} training images; lower"
            f" datasets.{name}.min_class_count"
        )


def _refuse_bad(name: str, bad: Sequence[str], total: int, on_bad: str, say: Say) -> None:
    if bad and on_bad == "fail":
        listed = "\n  ".join(bad[:SHOWN])
        raise ValueError(
            f"data set {name}: {len(bad):,} of {total:,} rows are bad; first {min(SHOWN, len(bad))}:\n  {listed}\n"
            "Mend them, or set prepare.on_bad: skip to leave them out"
        )
    if bad:
        say(f"{name}: {len(bad)} of {total} rows skipped; they are listed in manifest.json")


def _counts(name: str, done: Mapping[str, Sequence[Record]]) -> dict[str, int]:
    counts = {split: sum(record.count for record in done[split]) for split in SPLITS}
    if empty := [split for split in SPLITS if not counts[split]]:
        raise ValueError(
            f"data set {name}: no {' and no '.join(empty)} images; raise datasets.{name}.val / test or images"
        )
    return counts


def _say_missing(name: str, columns: Mapping[str, Column], labels: Mapping[str, np.ndarray], say: Say) -> None:
    """Name the classes that no training image has: a network can't learn them, and a misspelt name looks like one."""
    for key, classes in ((key, column.classes) for key, column in columns.items() if key in labels):
        missing = [classes[index] for index in np.flatnonzero(labels[key][0] == 0)]
        if missing:
            listed = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
            say(f"{name}: no training image has {len(missing)} of the {len(classes)} classes of {key}: {listed}")


def _completed(column: Column, counts: np.ndarray | None, kept: Sequence[int] | None) -> Column:
    """A column without its rare classes, with the shares of the others."""
    if counts is None:
        return column
    if kept is not None:
        column, counts = with_classes(column, kept), counts[:, kept]
    return replace(column, shares=shares(counts))


def _place(
    recipe: Recipe,
    parts: Mapping[str, Sequence[Part]],
    records: Mapping[str, Record],
    folder: Path,
    few: Mapping[str, Sequence[int]],
) -> Iterator[str]:
    """Give each finished shard its place under `folder`, rare classes dropped; give their digests in order."""
    for split in SPLITS:
        (folder / split).mkdir(parents=True)
        for number, part in enumerate(parts[split]):
            target = folder / split / f"part-{number:05d}.arrow"
            yield place(shard_of(recipe, part), target, few, records[part.key].sha256)


def _statistics(done: Sequence[Record], size: tuple[int, int]) -> tuple[Any, Any]:
    pixels = sum(record.count for record in done) * size[0] * size[1]
    mean, square = (np.sum([record.levels for record in done], axis=0) / [[255], [255**2]]) / pixels
    std = np.sqrt(np.maximum(square - np.square(mean), 1e-8))
    return tuple(round(float(value), 6) for value in mean), tuple(round(float(value), 6) for value in std)
