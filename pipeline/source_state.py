"""A data set's folder -> a digest of what lies there, without reading it: names, sizes and times of change.

`prepare` depends on it: an image that is added, mended or taken away makes the next `dvc repro` read the set again.
"""

import csv
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pipeline.datasets.manifest import LONGEST_CELL

Seen = tuple[str, int, int]  # a file's path below the folder, its size, its time of change in nanoseconds


def state_of(root: Path | None, code: Sequence[Path] = ()) -> str:
    """Map a set's folder, or its table, and its own program files to a digest; the same until one of them changes.

    Of a table the files that its cells name are looked at, and nothing else beside it. A missing folder is an empty
    one: `prepare` says what is wrong with it.
    """
    total = hashlib.sha256()
    for path in code:
        total.update(path.read_bytes())
    for seen in _listed(root) if root and root.is_file() else _below(str(root or ""), set()):
        total.update(repr(seen).encode())
    return total.hexdigest()[:16]


def _below(root: str, entered: set[tuple[int, int]], folder: str = "") -> Iterator[Seen]:
    """Every file below a folder, in order. Links are followed, each folder is entered once, hidden ones are not."""
    base = os.path.join(root, folder)
    if not os.path.isdir(base):
        return
    with os.scandir(base) as entries:
        ordered = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in ordered:
        name = os.path.join(folder, entry.name)
        try:
            stat = entry.stat()
        except FileNotFoundError:  # a link that leads nowhere
            continue
        if not entry.is_dir():
            yield name, stat.st_size, stat.st_mtime_ns
        elif (place := (stat.st_dev, stat.st_ino)) not in entered:
            entered.add(place)
            yield from _below(root, entered, name)


def _listed(table: Path) -> Iterator[Seen]:
    """A table and the files that its cells name."""
    for name in [table.name, *sorted(set(_cells(table)))]:
        path = table.parent / name
        if path.is_file():
            stat = path.stat()
            yield name, stat.st_size, stat.st_mtime_ns


def _cells(table: Path) -> Iterable[str]:
    """The cells that may be paths: short texts with a dot in them."""
    if table.suffix == ".parquet":
        import pyarrow.parquet  # slow to import, and most tables are csv

        rows: Iterable[Iterable[object]] = pyarrow.parquet.read_table(table).to_pydict().values()
        return [cell for column in rows for cell in column if isinstance(cell, str) and _like_a_path(cell)]
    csv.field_size_limit(LONGEST_CELL)
    with table.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        return [cell.strip() for row in csv.reader(file) for cell in row if _like_a_path(cell)]


def _like_a_path(cell: str) -> bool:
    return "." in cell and len(cell) < 256 and "\0" not in cell
