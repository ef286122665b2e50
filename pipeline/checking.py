"""A data set's settings -> what is in it and what would go wrong. Nothing is written, nothing is trained."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from models.spec import Column
from pipeline.artifacts import DatasetManifest
from pipeline.check.columns import ColumnCheck, check_column
from pipeline.check.copies import Copies, find_copies
from pipeline.check.images import ImagesCheck, check_images, image_warnings
from pipeline.check.rows import Seen, look
from pipeline.check.sample import pick
from pipeline.config import Config, Dataset
from pipeline.datasets import SPLITS, Row, Source, detect
from pipeline.machine import Machine, root_of
from pipeline.preparing import assign_splits, declare, open_source

CHUNKS = 16  # parts in which rows are handed to processes
SHOWN = 5  # bad rows named
WORTH_PROCESSES = 1.0  # seconds of reading from which on they are started

Read = tuple[str, Row, Seen]  # with its split
Splits = Mapping[str, Sequence[Row]]
Apply = Callable[[Callable[[Sequence[Row]], list[Seen | str]], Sequence[Sequence[Row]]], Iterable[list[Seen | str]]]


@dataclass(frozen=True, kw_only=True)
class DatasetCheck:
    """One data set: what it holds, `stops` that `prepare` would refuse, and `warnings` that it wouldn't."""

    manifest: DatasetManifest
    reader: str
    root: str
    counts: Mapping[str, int]
    drawn: tuple[str, ...]  # splits that the set has no list for
    looked_at: int
    images: ImagesCheck | None  # None where none could be read
    columns: Mapping[str, ColumnCheck]
    copies: Copies
    stops: tuple[str, ...]
    warnings: tuple[str, ...]
    source: Source
    shown: tuple[Row, ...]  # training rows that show as many labels as possible

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def as_json(self) -> dict[str, Any]:
        return {
            "reader": self.reader,
            "root": self.root,
            "licence": self.manifest.licence,
            "size": self.manifest.size,
            "counts": dict(self.counts),
            "drawn": self.drawn,
            "looked_at": self.looked_at,
            "images": asdict(self.images) if self.images else None,
            "copies": asdict(self.copies),
            "columns": {name: asdict(check) for name, check in self.columns.items()},
            "stops": self.stops,
            "warnings": self.warnings,
        }


def check_dataset(name: str, config: Config, machine: Machine, apply: Apply, samples: int) -> DatasetCheck:
    """Map a data set's settings to its check, with `samples` rows to draw. ValueError where it can't be listed.

    `apply` maps a function over parts of the rows as `map` does, in processes of their own if it likes; it is asked for
    sets that take more than a second.
    """
    settings, root = config.datasets[name], root_of(name, config, machine)
    source, rows = _open(name, config, machine, root)
    manifest = declare(name, config, source)
    splits = assign_splits(rows, val=settings.val, test=settings.test, seed=config.seed)
    picked, seconds = pick(source, splits)
    read, bad = _read(source, manifest, picked, apply if seconds > WORTH_PROCESSES else map)
    images = check_images([one for *_, one in read], settings.size) if read else None
    columns = _check_columns(manifest.columns, splits, read, complete=len(picked) == len(rows), settings=settings)
    copies = find_copies([(split, row) for split, some in splits.items() for row in some], read)
    official, problem = {row.split for row in rows}, _bad_rows(bad, len(picked))
    refused = bool(bad) and (config.prepare.on_bad == "fail" or not read)
    return DatasetCheck(
        manifest=manifest,
        reader=settings.reader,
        root=str(root or ""),
        counts={split: len(some) for split, some in splits.items()},
        drawn=tuple(split for split in SPLITS if split not in official),
        looked_at=len(picked),
        images=images,
        columns=columns,
        copies=copies,
        stops=(*([problem] if refused else []), *_empty_splits(name, splits), *_doubles(rows)),
        warnings=(
            *([problem] if bad and not refused else []),
            *_row_warnings(copies),
            *(image_warnings(name, images, settings.size) if images else ()),
        ),
        source=source,
        shown=tuple(_shown(read, columns, samples)),
    )


def _open(name: str, config: Config, machine: Machine, root: Path | None) -> tuple[Source, Sequence[Row]]:
    """A data set's reader and rows; where the folder isn't what it expects, which reader knows it."""
    try:
        source = open_source(name, config, machine)
        source.columns()
        return source, source.rows()
    except ValueError as error:
        known = [reader for reader in (detect(root) if root else ()) if reader != config.datasets[name].reader]
        layouts = " or ".join(known)
        hint = f"\n  It looks like the layout of {layouts}: set datasets.{name}.reader: {layouts}" if known else ""
        raise ValueError(f"{error}{hint}") from None


def _read(
    source: Source, manifest: DatasetManifest, picked: Sequence[tuple[str, Row]], apply: Apply
) -> tuple[list[Read], list[str]]:
    """Look at rows; give back the readable ones in their order, and a line for each of the others."""
    parts = [picked[start::CHUNKS] for start in range(min(CHUNKS, len(picked)))]
    work = partial(look, source, manifest.columns, manifest.size)
    found = list(apply(work, [[row for _, row in part] for part in parts]))
    looked = [(*picked[place], found[place % CHUNKS][place // CHUNKS]) for place in range(len(picked))]
    read = [(split, row, one) for split, row, one in looked if isinstance(one, Seen)]
    return read, [one for *_, one in looked if isinstance(one, str)]


def _check_columns(
    columns: Mapping[str, Column], splits: Splits, read: Sequence[Read], *, complete: bool, settings: Dataset
) -> dict[str, ColumnCheck]:
    checks, indexed = {}, _indexed(columns, splits, read)
    for name, column in columns.items():
        if name == indexed:
            facts = {split: [row.label for row in some] for split, some in splits.items()}
        else:
            facts = {split: [one.facts[name] for at, _, one in read if at == split] for split in SPLITS}
        checks[name] = check_column(
            column,
            facts,
            complete=complete or name == indexed,
            size=settings.size,
            least=settings.min_class_count,
        )
    return checks


def _indexed(columns: Mapping[str, Column], splits: Splits, read: Sequence[Read]) -> str | None:
    """The class column whose values the rows know without an image, as the images that were read confirm."""
    classes = [name for name, column in columns.items() if column.layout == "class"]
    known = all(row.label is not None for some in splits.values() for row in some)
    if len(classes) != 1 or not known or any(one.facts[classes[0]] != row.label for _, row, one in read):
        return None
    return classes[0]


def _bad_rows(bad: Sequence[str], looked: int) -> str:
    rows = "\n  ".join(bad[:SHOWN])
    return (
        f"{len(bad):,} of the {looked:,} rows looked at are bad; first {min(SHOWN, len(bad))}:\n  {rows}\n"
        "Mend them, or leave them out by prepare.on_bad: skip"
    )


def _empty_splits(name: str, splits: Splits) -> Iterator[str]:
    if empty := [split for split in SPLITS if not splits[split]]:
        yield f"no {' and no '.join(empty)} images; raise datasets.{name}.val / test or images"


def _doubles(rows: Sequence[Row]) -> Iterator[str]:
    if twice := [row_id for row_id, count in Counter(row.id for row in rows).items() if count > 1]:
        yield f"{len(twice):,} ids stand for several rows each, the first is {twice[0]!r}"


def _row_warnings(copies: Copies) -> Iterator[str]:
    if copies.across:
        yield f"{copies.across:,} images stand in more than one split: what is measured on them is too good"


def _shown(read: Sequence[Read], checks: Mapping[str, ColumnCheck], samples: int) -> list[Row]:
    """Training rows to draw, in their order; each column in turn chooses one that is labelled there."""
    train = [(row, one) for split, row, one in read if split == "train"]
    names = [name for name, check in checks.items() if check.labelled["train"]]
    chosen: set[int] = set()
    for turn in range(samples):
        name = names[turn % len(names)] if names else ""
        labelled = [at for at, (_, one) in enumerate(train) if not name or one.facts[name] is not None]
        chosen |= set(labelled[turn * len(labelled) // samples :][:1])
    return [train[at][0] for at in sorted(chosen)]
