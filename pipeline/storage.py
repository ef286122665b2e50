"""Where jobs keep their state: one folder a job, on this disk or in an object store, each file written whole or not.

A storage that is away for a moment is waited for: nothing is taken for missing, or begun anew, because of it.
"""

import errno
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from secrets import token_hex
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pyarrow.fs as pafs

PATIENCE = 60.0  # seconds for which one thing is tried again
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
FULL = (errno.ENOSPC, errno.EDQUOT)
OBJECT_STORES = ("s3", "gcs", "abfs")  # an object appears whole, and to rename one is to copy it
DRAFT = ".part"
Given = TypeVar("Given")

_seen: set[str] = set()  # storages that this process has found standing


class StorageFailed(OSError, ValueError):
    """A storage that is full, or stayed away; the message says, for the user, what it hindered and how to go on."""


@dataclass(frozen=True)
class JobFolder:
    """`<storage>/jobs/<key>`: checkpoints/ and best/, history.jsonl, bundle/, and at the end result.json.

    `stands`: the storage was there when the work began. Where it is missing it is away, and no new one is made.
    """

    storage: str
    key: str
    stands: bool = False

    @cached_property
    def _place(self) -> tuple[pafs.FileSystem, str]:
        system, path = pafs.FileSystem.from_uri(self.storage)
        return system, path.rstrip("/")

    def _named(self, name: str) -> str:
        return f"{self._place[1]}/jobs/{self.key}/{name}"

    @property
    def path(self) -> str:
        """The folder as messages name it."""
        return f"{shown(self.storage).rstrip('/')}/jobs/{self.key}"

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all."""
        self._patiently(f"write {name}, {len(data):,} bytes", lambda: self._write(name, data))

    def read(self, name: str) -> bytes | None:
        """A file's bytes; None where the storage stands and the file does not."""

        def attempt() -> bytes | None:
            try:
                return self._read(name)
            except FileNotFoundError:
                self._look_for_storage()
                return None

        return self._patiently(f"read {name}", attempt)

    def fetch(self, name: str) -> bytes:
        """The bytes of a file that somebody has seen: where it is not there, it is not there yet."""
        return self._patiently(f"read {name}", lambda: self._read(name))

    def names(self, folder: str) -> list[str]:
        """The files in a sub-folder and those in it, by their paths inside it; drafts don't count."""
        found = self._patiently(f"list {folder}", lambda: self._list(folder))
        return [name for name in found if not name.endswith(DRAFT)]

    def delete(self, name: str) -> None:
        """Remove a file that may be gone already."""

        def attempt() -> None:
            with suppress(FileNotFoundError):
                self._place[0].delete_file(self._named(name))

        self._patiently(f"remove {name}", attempt)

    def clear_drafts(self) -> None:
        """Remove what killed writers left. One that lives after all finds its draft gone, and writes it again."""
        for name in self._patiently("list its files", lambda: self._list("")):
            if name.endswith(DRAFT):
                self.delete(name)

    def write_history(self, records: Sequence[Mapping[str, Any]]) -> None:
        self.write("history.jsonl", "".join(json.dumps(record) + "\n" for record in records).encode())

    def read_history(self) -> list[dict[str, Any]]:
        """The records of finished epochs; a torn file counts as none."""
        records = [_parsed(line) for line in (self.read("history.jsonl") or b"").splitlines()]
        whole = [record for record in records if record is not None]
        return whole if len(whole) == len(records) else []

    def write_result(self, result: Mapping[str, Any]) -> None:
        """The last file of a job: where it stands, the job is done."""
        self.write("result.json", json.dumps(result, indent=1).encode())

    def read_result(self) -> dict[str, Any] | None:
        """A finished job's result; a torn file counts as none."""
        return _parsed(self.read("result.json") or b"")

    def upload(self, folder: Path, name: str) -> None:
        """Copy a folder of this disk, with its sub-folders, to a sub-folder of the job."""
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            self.write(f"{name}/{file.relative_to(folder).as_posix()}", file.read_bytes())

    def download(self, name: str, folder: Path) -> None:
        """Copy a sub-folder of the job, with those in it, to this disk."""
        names = self.names(name)
        if not names:
            raise StorageFailed(f"{self.path}/{name}: no files there; remove {self.path} to have the job trained again")
        for inner in names:
            (folder / inner).parent.mkdir(parents=True, exist_ok=True)
            (folder / inner).write_bytes(self.fetch(f"{name}/{inner}"))

    def _read(self, name: str) -> bytes:
        with self._place[0].open_input_stream(self._named(name)) as stream:
            data = stream.read()
        _seen.add(self.storage)
        return data

    def _write(self, name: str, data: bytes) -> None:
        system, file = self._place[0], self._named(name)
        if system.type_name in OBJECT_STORES:
            with system.open_output_stream(file) as stream:
                stream.write(data)
            return
        self._look_for_storage()
        draft = f"{file}.{token_hex(4)}{DRAFT}"
        try:
            system.create_dir(os.path.dirname(file), recursive=True)
            with system.open_output_stream(draft) as stream:
                stream.write(data)
            if system.type_name == "local":
                settle(draft)
            system.move(draft, file)
            _seen.add(self.storage)
        except OSError:
            with suppress(OSError):
                system.delete_file(draft)
            raise

    def _list(self, folder: str) -> list[str]:
        place = self._named(folder)
        found = self._place[0].get_file_info(pafs.FileSelector(place, recursive=True, allow_not_found=True))
        if not found:
            self._look_for_storage()
        files = [PurePosixPath(info.path) for info in found if info.type == pafs.FileType.File]
        return sorted(str(file.relative_to(place)) for file in files)

    def _look_for_storage(self) -> None:
        """OSError where it stood before and does not now: an empty mount point is no empty storage.

        Object stores tell what is not there from what can't be reached.
        """
        system, root = self._place
        if system.type_name in OBJECT_STORES:
            return
        if system.get_file_info(f"{root}/jobs").type != pafs.FileType.NotFound:
            _seen.add(self.storage)
        elif self.stands or self.storage in _seen:
            raise FileNotFoundError(errno.ENOENT, "the storage is not there any more", f"{root}/jobs")

    def _patiently(self, what: str, attempt: Callable[[], Given]) -> Given:
        """Try, with growing pauses, until it is done or PATIENCE ends; a full storage is asked once more, no longer."""
        began, pause, full = time.monotonic(), FIRST_PAUSE, False
        while True:
            try:
                return attempt()
            except OSError as error:
                left = PATIENCE - (time.monotonic() - began)
                if error.errno in FULL and full:
                    raise StorageFailed(
                        f"{self.path}: no space left to {what}. Make room, and the same command goes on from"
                        f" {self._last_checkpoint()} ({error})"
                    ) from error
                if left <= 0:
                    raise StorageFailed(
                        f"{self.path}: could not {what}, tried for {PATIENCE:g} s ({error}). Once the storage is back,"
                        " the same command goes on from the last checkpoint"
                    ) from error
                full = error.errno in FULL
                if pause == FIRST_PAUSE and not full:
                    print(f"{self.path}: can't {what} ({error}); trying for {PATIENCE:g} s", file=sys.stderr)
                time.sleep(min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE)

    def _last_checkpoint(self) -> str:
        with suppress(OSError):
            whole = [name for name in self._list("checkpoints") if not name.endswith(DRAFT)]
            return f"checkpoint {max(whole)}" if whole else "the beginning"
        return "the last checkpoint"


def open_storage(storage: str) -> None:
    """Make a storage's folder of jobs. From then on it stands: whoever misses it takes it for away, not for empty."""
    folder = JobFolder(storage, "")
    system, root = folder._place
    if system.type_name not in OBJECT_STORES:
        folder._patiently("make the folder", lambda: system.create_dir(f"{root}/jobs", recursive=True))


def shown(storage: str) -> str:
    """A storage's address as messages name it: without the keys and options that it may hold."""
    if "://" not in storage:
        return storage
    parts = urlsplit(storage)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def settle(file: str) -> None:
    """Have the disk hold a file before it gets its name: after a power loss there is the old file or the new one."""
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _parsed(text: bytes) -> dict[str, Any] | None:
    """A JSON object; None for what is none, or not whole."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
