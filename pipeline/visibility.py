"""What the machines of a cluster see alike, asked before work goes to them; it runs on each, and imports little.

`Ask` runs a function once on every machine and gives what it returned there by the machine's address, as
`runner.everywhere` does.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow.fs as pafs

from pipeline.artifacts import digest, read_json, shards

Ask = Callable[[Callable[[Any], Any], Any], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Sought:
    """What a machine looks for: a mark left in the storage, and data sets in the folder `prepared`, by fingerprint."""

    storage: str
    mark: str
    prepared: Path
    datasets: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What a machine saw: why not the storage, empty if it did, and the data sets that it lacks."""

    trouble: str
    lacking: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Folders:
    """What a machine looks for that prepares data: a mark left in a folder, and a data set's files."""

    folder: Path
    mark: str
    root: Path | None
    outline: str


@contextmanager
def marked(storage: str) -> Iterator[str]:
    """Leave a small file in a storage, give its name, take it away when the block ends."""
    system, base = pafs.FileSystem.from_uri(storage)
    mark = f".seen-{uuid4().hex}"  # a new name: what a network file system remembers of it can't be out of date
    system.create_dir(base, recursive=True)
    with system.open_output_stream(f"{base}/{mark}") as stream:
        stream.write(b"seen\n")
    try:
        yield mark
    finally:
        system.delete_file(f"{base}/{mark}")


def look(sought: Sought) -> Sight:
    """What this machine sees of what is sought."""
    lacking = [name for name, fingerprint in sought.datasets.items() if not holds(sought.prepared, name, fingerprint)]
    return Sight(trouble=_trouble(sought.storage, sought.mark), lacking=tuple(lacking))


def holds(prepared: Path, name: str, fingerprint: str) -> bool:
    """Whether a folder that `prepare` wrote is here and has the data set with this fingerprint."""
    try:
        found = read_json(prepared / "manifest.json").get(name, {}).get("fingerprint")
    except (OSError, ValueError):
        return False
    return found == fingerprint and all(shards(name, split, prepared) for split in ("train", "val", "test"))


def strangers(folder: Path, root: Path | None, ask: Ask) -> dict[str, Path]:
    """Map machines, by address, to the one of two folders that they do not see as this one does; most see both.

    Of a data set's files the names at the top are compared, and a table's size: enough to tell another folder from this
    one, not a copy of which something deep inside is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with marked(str(folder)) as mark:
        views = ask(sees, Folders(folder=folder, mark=mark, root=root, outline=_outline(root)))
    asked = (folder, root or folder)
    return {address: asked[seen.index(False)] for address, seen in views.items() if not all(seen)}


def sees(sought: Folders) -> tuple[bool, bool]:
    """Whether this machine sees the folder, and the data set's files, as the machine does that asks."""
    return not _trouble(str(sought.folder), sought.mark), _outline(sought.root) == sought.outline


def _trouble(storage: str, mark: str) -> str:
    """Why a mark left in a storage is not seen here; empty where it is."""
    try:
        system, base = pafs.FileSystem.from_uri(storage)
        there = system.get_file_info(f"{base}/{mark}").type == pafs.FileType.File
    except OSError as error:  # no way there, or no permission
        return str(error)
    return "" if there else "it is another folder there"


def _outline(root: Path | None) -> str:
    """A digest of what lies at the top of a data set's folder, or beside its table; empty where nothing does."""
    if root is None or not root.exists():
        return ""
    folder, size = (root.parent, root.stat().st_size) if root.is_file() else (root, 0)
    return digest([sorted(name for name in os.listdir(folder) if not name.startswith(".")), size])
