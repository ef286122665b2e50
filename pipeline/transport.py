"""Files between this disk and a storage: each whole or not there, digested on the way, several at once."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from uuid import uuid4

import pyarrow as pa
import pyarrow.fs as pafs

from pipeline.plan_text import bytes_text, time_text
from pipeline.storage import FULL, OBJECT_STORES, settle

Say = Callable[[str], None]
Given = TypeVar("Given")
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # seconds, between tries
STREAMS = 4  # files on their way at once
CHUNK = 8 << 20
SAY_SECONDS = 1.0


def upload(path: Path, system: pafs.FileSystem, target: str) -> str:
    """Copy a file of this disk to the storage; give its sha256."""
    total = hashlib.sha256()
    with path.open("rb") as source, named_when_whole(system, target) as stream:
        for chunk in _chunks(source):
            total.update(chunk)
            stream.write(chunk)
    return total.hexdigest()


def download(system: pafs.FileSystem, source: str, path: Path, size: int, sha256: str) -> None:
    """Copy a file of the storage to this disk under a temporary name; rename it if it is the one that was published."""
    draft, total = path.with_name(f"{path.name}.part"), hashlib.sha256()
    with system.open_input_stream(source) as stream, draft.open("wb") as copy:
        for chunk in _chunks(stream):
            total.update(chunk)
            copy.write(chunk)
    if total.hexdigest() != sha256:
        raise ValueError(
            f"{source} is not what was published ({draft.stat().st_size} of {size} bytes): delete it in the storage,"
            " then start the same command again, which copies it again"
        )
    draft.replace(path)


def write(system: pafs.FileSystem, target: str, data: bytes) -> None:
    """Leave a file in the storage, whole or not at all."""
    with named_when_whole(system, target) as stream:
        stream.write(data)


@contextmanager
def named_when_whole(system: pafs.FileSystem, target: str) -> Iterator[pa.NativeFile]:
    """A stream to the storage under a temporary name; an object store shows no object before it ends."""
    if system.type_name in OBJECT_STORES:
        with system.open_output_stream(target) as stream, _unless_broken_off(system, target, stream):
            yield stream
        return
    draft = f"{target}.{uuid4().hex}.part"
    try:
        with system.open_output_stream(draft) as stream:
            yield stream
        if system.type_name == "local":
            settle(draft)
        system.move(draft, target)
    except BaseException:
        with suppress(OSError):
            system.delete_file(draft)
        raise


@contextmanager
def _unless_broken_off(system: pafs.FileSystem, target: str, stream: pa.NativeFile) -> Iterator[None]:
    try:
        yield
    except BaseException:
        # Closing is all that pyarrow can do with a stream, and it makes an object of what was sent so far.
        with suppress(OSError):
            stream.close()
            system.delete_file(target)
        raise


def _chunks(stream: BinaryIO | pa.NativeFile) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK):
        yield chunk


def copied(copy: Callable[[str], Any], sizes: Mapping[str, int], what: str, say: Say) -> Iterator[Any]:
    """Map files to copy(file) in order, several at once, saying how far it is."""
    done, total, started = 0, sum(sizes.values()), time.monotonic()
    said, pool = started, ThreadPoolExecutor(STREAMS)
    try:
        for size, result in zip(sizes.values(), pool.map(copy, sizes), strict=True):
            done, now = done + size, time.monotonic()
            if now - said >= SAY_SECONDS:
                left = time_text((now - started) * (total - done) / max(1, done))
                say(f"{what}: {bytes_text(done)} of {bytes_text(total)}, {left} left")
                said = now
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def sizes_below(system: pafs.FileSystem, base: str) -> dict[str, int]:
    """The files below a folder of the storage, with their sizes."""
    found = system.get_file_info(pafs.FileSelector(base, recursive=True, allow_not_found=True))
    return {info.path.removeprefix(f"{base}/"): info.size for info in found if info.type == pafs.FileType.File}


def patiently(attempt: Callable[[], Given], say: Say) -> Given:
    """Try what goes on where it stopped, again after a pause while the storage is away; not where a disk is full."""
    for pause in PAUSES:
        try:
            return attempt()
        except OSError as error:
            if error.errno in FULL:
                raise
            say(f"{error}; trying again in {pause:g} s")
            time.sleep(pause)
    return attempt()
