"""Prepared data on machines that do not see artifacts/: once from there to the storage, once from it to each machine.

    <storage>/data/<fingerprint>/{train,val,test}/*.arrow, whole.json     what `publish` leaves
    <cache>/data/<fingerprint>/...                                        the same on a machine's own disk, by `obtain`
    <cache>/views/<digest>/<data set>                                     links: the data sets of one job, side by side

Every byte is checked: a data set's fingerprint is a digest of its shards' digests. A file has its name once it is
whole, whole.json comes last, and what was stopped goes on. Nothing is removed from a cache: that is left to people.
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from socket import gethostname
from typing import Any

import pyarrow.fs as pafs

from pipeline.artifacts import (
    DatasetManifest,
    digest,
    digest_file,
    fingerprint_of,
    meaning,
    read_json,
    read_manifests,
    shards,
    write_json,
)
from pipeline.plan_text import bytes_text
from pipeline.spool import lock
from pipeline.storage import FULL, shown
from pipeline.transport import Say, copied, download, patiently, sizes_below, upload, write
from pipeline.visibility import Ask, Sight, Sought, holds, look, marked

WHOLE = "whole.json"
SHARD = re.compile(r"(train|val|test)/[\w-]+\.arrow")


@dataclass(frozen=True, kw_only=True)
class Published:
    """A data set's place in a storage."""

    storage: str
    fingerprint: str

    @property
    def path(self) -> str:
        return f"{shown(self.storage).rstrip('/')}/data/{self.fingerprint}"

    def place(self) -> tuple[pafs.FileSystem, str]:
        system, base = pafs.FileSystem.from_uri(self.storage)
        return system, f"{base}/data/{self.fingerprint}"


def ready_cluster(prepared: Path, storage: str, names: Sequence[str], ask: Ask, say: Say) -> None:
    """See to it that every machine that `ask` reaches sees the storage, and has a place to read these data sets from.

    ValueError names the machines that do not see the storage. Data sets are published where a machine lacks one, and in
    an object store always: machines that come later may lack them too.
    """
    manifests = read_manifests(prepared)
    datasets = {name: manifests[name].fingerprint for name in names}
    try:
        with marked(storage) as mark:
            views = ask(look, Sought(storage=storage, mark=mark, prepared=prepared, datasets=datasets))
    except OSError as error:
        raise ValueError(f"machine.yaml storage {shown(storage)} can't be written here: {error}") from error
    _refuse_strangers(storage, views)
    lacking = [address for address, sight in views.items() if sight.lacking]
    if lacking:
        say(f"{len(lacking)} of {len(views)} machines do not see {prepared}: they fetch data from {shown(storage)}")
    if lacking or pafs.FileSystem.from_uri(storage)[0].type_name != "local":
        publish(prepared, storage, names, say)


def _refuse_strangers(storage: str, views: Mapping[str, Sight]) -> None:
    strangers = {address: sight.trouble for address, sight in views.items() if sight.trouble}
    if strangers:
        listed = "; ".join(f"{address} ({trouble})" for address, trouble in strangers.items())
        raise ValueError(
            f"machine.yaml storage {shown(storage)} is not seen by {listed}:"
            " give a folder that all machines share, or s3://... that all may read and write"
        )


def publish(prepared: Path, storage: str, names: Sequence[str], say: Say) -> None:
    """Map data sets to their folders in the storage; what stands there is not copied again.

    ValueError where shards are not those of manifest.json, or the storage can't be written.
    """
    manifests = read_manifests(prepared)
    for name in names:
        target = Published(storage=storage, fingerprint=manifests[name].fingerprint)
        try:
            patiently(partial(_publish, manifests[name], prepared, target, say), say)
        except OSError as error:
            raise ValueError(
                f"data set {name} can't be copied to {target.path}: {error}; the same command goes on from here"
            ) from error


def _publish(manifest: DatasetManifest, prepared: Path, target: Published, say: Say) -> None:
    system, base = target.place()
    paths = [path for split in ("train", "val", "test") for path in shards(manifest.name, split, prepared)]
    files = {path.relative_to(prepared / manifest.name).as_posix(): path for path in paths}
    sizes, there = {file: path.stat().st_size for file, path in files.items()}, sizes_below(system, base)
    todo = {file for file, size in sizes.items() if there.get(file) != size}
    if not todo and WHOLE in there:
        return
    for split in {file.partition("/")[0] for file in todo}:
        system.create_dir(f"{base}/{split}", recursive=True)

    def send(file: str) -> str:
        return upload(files[file], system, f"{base}/{file}") if file in todo else digest_file(files[file])

    digests = list(copied(send, sizes, f"publish {manifest.name}", say))
    if fingerprint_of(digests, meaning(manifest.columns)) != manifest.fingerprint:
        for file in todo:
            system.delete_file(f"{base}/{file}")
        raise ValueError(
            f"{prepared / manifest.name}: shards are not those of manifest.json; run `dvc repro -f prepare`"
        )
    listed = [[file, sizes[file], sha256] for file, sha256 in zip(files, digests, strict=True)]
    whole = {"name": manifest.name, "meaning": meaning(manifest.columns), "files": listed}
    write(system, f"{base}/{WHOLE}", json.dumps(whole).encode())


def obtain(datasets: Mapping[str, str], prepared: Path, storage: str, cache: str) -> Path:
    """Map data sets, fingerprints by name, to a folder of this machine that has all of them as `prepare` leaves them.

    It is `prepared` itself where this machine sees it, else a folder of the cache, filled from the storage by the first
    process that asks. ValueError where neither has a data set, or the disk has no room.
    """
    if all(holds(prepared, name, fingerprint) for name, fingerprint in datasets.items()):
        return prepared
    base = Path(cache).expanduser().absolute()
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, fingerprint in datasets.items():
        folder, source = base / "data" / fingerprint, Published(storage=storage, fingerprint=fingerprint)
        if not _is_whole(folder):
            with lock(folder):
                patiently(partial(_fetch, name, source, folder, prepared), lambda _: None)
    view = base / "views" / digest(sorted(datasets.items()))
    view.mkdir(parents=True, exist_ok=True)
    for name, fingerprint in datasets.items():
        with suppress(FileExistsError):
            (view / name).symlink_to(Path("../../data") / fingerprint)
    return view


def fetch(wanted: tuple[Mapping[str, str], Path, str, str]) -> None:
    """`obtain` on a machine that is told to, before any job waits for it."""
    obtain(*wanted)


def _is_whole(folder: Path) -> bool:
    if not (folder / WHOLE).is_file():
        return False
    return all(_size(folder / file) == size for file, size, _ in read_json(folder / WHOLE)["files"])


def _fetch(name: str, source: Published, folder: Path, prepared: Path) -> None:
    """Bring what this machine lacks of a data set; another process may have done so before this one had the lock."""
    if _is_whole(folder):
        return
    system, base = source.place()
    whole = _listing(name, source, prepared)
    files = {file: (size, sha256) for file, size, sha256 in whole["files"]}
    todo = {file: size for file, (size, _) in files.items() if _size(folder / file) != size}
    _refuse_broken(source, todo, sizes_below(system, base))
    if sum(todo.values()) > (free := shutil.disk_usage(folder).free):
        raise ValueError(_no_room(name, folder, sum(todo.values()), free))
    for file in todo:
        (folder / file).parent.mkdir(exist_ok=True)

    def get(file: str) -> None:
        download(system, f"{base}/{file}", folder / file, *files[file])

    try:
        for _ in copied(get, todo, f"fetch {name}", lambda _: None):
            pass
        write_json(folder / WHOLE, whole)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise ValueError(_no_room(name, folder, sum(todo.values()), shutil.disk_usage(folder).free)) from error


def _listing(name: str, source: Published, prepared: Path) -> dict[str, Any]:
    """What whole.json says of a published data set; ValueError where it is not there, or not of this fingerprint."""
    system, base = source.place()
    if system.get_file_info(f"{base}/{WHOLE}").type != pafs.FileType.File:
        raise ValueError(
            f"machine {gethostname()} sees data set {name} neither in {prepared} nor in {source.path}: start the same"
            " command again now that this machine is there, or let all machines see one artifacts/ folder"
        )
    with system.open_input_stream(f"{base}/{WHOLE}") as stream:
        data = stream.read()
    if (whole := _sound(data, source.fingerprint)) is None:
        raise ValueError(f"{source.path}/{WHOLE} is not of this data set: delete that folder, then start again")
    return whole


def _sound(data: bytes, fingerprint: str) -> dict[str, Any] | None:
    """Map whole.json's bytes to what they say; None unless they list the shards of the data set of this fingerprint."""
    try:
        whole = json.loads(data)
        digests = [sha256 for file, size, sha256 in whole["files"] if SHARD.fullmatch(file) and isinstance(size, int)]
        all_shards = len(digests) == len(whole["files"])
        return whole if all_shards and fingerprint_of(digests, whole["meaning"]) == fingerprint else None
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def _refuse_broken(source: Published, sizes: Mapping[str, int], there: Mapping[str, int]) -> None:
    if broken := [file for file, size in sizes.items() if there.get(file) != size]:
        raise ValueError(
            f"{source.path}: {len(broken)} files are missing or cut short, {broken[0]} is one; start the same command"
            " again, which copies them again"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _no_room(name: str, folder: Path, needed: int, free: int) -> str:
    return (
        f"machine {gethostname()}: data set {name} takes {bytes_text(needed)} more on this disk, {bytes_text(free)} are"
        f" free. Delete data sets that no run uses any more in {folder.parent}, or set machine.yaml cache to a folder"
        " on another disk"
    )
