"""A study's results in the cluster's storage: put there stage by stage where it runs, brought back by `make fetch`.

<storage>/dvc/files/md5                    objects as DVC's own cache and remotes lay them out, named by their content
<storage>/submitted/<experiment>/dvc.lock  which of them are the study's; written after them
<storage>/submitted/<experiment>/kept      the submission that wrote it
<storage>/submitted/<experiment>/job       the last submission

DVC's push and pull would hold its lock, which a running `dvc repro` wants between two stages, and need a plug-in for
each kind of object store; copying what is missing needs neither. What comes from storage is checked, not trusted.
"""

import hashlib
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
from ruamel.yaml import YAML

from pipeline.storage import OBJECT_STORES, shown
from pipeline.transport import named_when_whole

THREADS = 8  # copies at a time; an object store answers slowly and many at once
LONGEST_NAME = 60
MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
Stages = Mapping[str, Mapping[str, Any]]


class Damaged(ValueError):
    """What was read under an object's name is not that object."""


@dataclass(frozen=True)
class Place:
    """A folder of a storage, or all of it."""

    storage: str
    folder: str = ""

    @cached_property
    def _place(self) -> tuple[pafs.FileSystem, str]:
        system, base = pafs.FileSystem.from_uri(self.storage)
        return system, f"{base.rstrip('/')}/{self.folder}".rstrip("/")

    @property
    def path(self) -> str:
        """The folder as messages name it."""
        return f"{shown(self.storage).rstrip('/')}/{self.folder}".rstrip("/")

    def read(self, name: str) -> bytes | None:
        system, base = self._place
        if system.get_file_info(f"{base}/{name}").type != pafs.FileType.File:
            return None
        with system.open_input_stream(f"{base}/{name}") as stream:
            return stream.read()

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all."""
        with self._writing(name) as stream:
            stream.write(data)

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        """Those of some files that are there, with their sizes."""
        system, base = self._place
        distinct = list(dict.fromkeys(names))
        infos = system.get_file_info([f"{base}/{name}" for name in distinct])
        return {name: info.size for name, info in zip(distinct, infos, strict=True) if info.type == pafs.FileType.File}

    def holds(self, stage: Mapping[str, Any]) -> bool:
        """Whether all files of a stage's results are there."""
        named = _named(stage)
        lists = [self._listed(name) for name in named if name.endswith(".dir")]
        wanted = {*named, *chain.from_iterable(listed or () for listed in lists)}
        return None not in lists and len(self.sizes(wanted)) == len(wanted)

    def copy_results(self, stages: Stages, target: "Place") -> list[str]:
        """Copy the results of some stages that are here and not there; give the objects that are damaged here."""
        named = [name for stage in stages.values() for name in _named(stage)]
        files = chain.from_iterable(self._listed(name) or () for name in named if name.endswith(".dir"))
        return [*self.copy(files, target), *self.copy(named, target)]

    def copy(self, names: Iterable[str], target: "Place") -> list[str]:
        """Copy objects that are here and not there, or of another size there; give those that are damaged here."""
        here = self.sizes(names)
        there = target.sizes(here)
        wanted = [name for name, size in here.items() if there.get(name) != size]
        with ThreadPoolExecutor(THREADS) as pool:
            whole = list(pool.map(lambda name: self._send(name, target), wanted))
        return [name for name, good in zip(wanted, whole, strict=True) if not good]

    def _send(self, name: str, target: "Place") -> bool:
        system, base = self._place
        said = hashlib.md5(usedforsecurity=False)
        try:
            with system.open_input_stream(f"{base}/{name}") as source, target._writing(name) as copy:
                while piece := source.read(1 << 20):
                    said.update(piece)
                    copy.write(piece)
                if said.hexdigest() != _md5(name):
                    raise Damaged
        except Damaged:
            return False
        return True

    @contextmanager
    def _writing(self, name: str) -> Iterator[pa.NativeFile]:
        system, base = self._place
        if system.type_name not in OBJECT_STORES:
            system.create_dir(os.path.dirname(f"{base}/{name}"), recursive=True)
        with named_when_whole(system, f"{base}/{name}") as stream:
            yield stream

    def _listed(self, name: str) -> list[str] | None:
        """The objects of an object that lists a folder's files; None where it is not there, or damaged."""
        data, path = self.read(name), f"{self.path}/{name}"
        if data is None or hashlib.md5(data, usedforsecurity=False).hexdigest() != _md5(name):
            return None
        try:
            files = {PurePosixPath(entry["relpath"]): entry["md5"] for entry in json.loads(data)}
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{path}: not a list of files as DVC writes them") from None
        for file in files:
            if file.is_absolute() or ".." in file.parts:
                raise ValueError(f"{path}: {file} would leave its folder")
        return [_object(md5, path) for md5 in files.values()]


@dataclass(frozen=True)
class StudyFolder:
    """A study's results in storage, and what its sender and the cluster tell each other there."""

    storage: str
    experiment: str

    @property
    def name(self) -> str:
        """The experiment as a name of its own that folders and Ray's jobs may bear."""
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", self.experiment).lstrip("-_")[:LONGEST_NAME]
        if plain == self.experiment:
            return plain
        return f"{plain or 'study'}-{hashlib.sha256(self.experiment.encode()).hexdigest()[:8]}"

    @property
    def notes(self) -> Place:
        return Place(self.storage, f"submitted/{self.name}")

    @property
    def objects(self) -> Place:
        return Place(self.storage, "dvc")

    @property
    def lock(self) -> bytes | None:
        """The dvc.lock of what is finished."""
        return self.notes.read("dvc.lock")

    def keep(self, lock: bytes, cache: Path, note: bytes = b"") -> None:
        """Copy what a dvc.lock names from DVC's cache to storage, then the lock, and a note of who wrote it.

        What only the lock in storage has stays in it.
        """
        damaged = Place(str(cache)).copy_results(stages_of(lock, "dvc.lock"), self.objects)
        _warn(damaged, cache, "the stage that made it has to run again: dvc repro -f")
        earlier = self.lock
        self.notes.write("dvc.lock", lock if earlier is None else self.merged(lock, earlier))
        self.notes.write("kept", note)

    def bring(self, lock: bytes, cache: Path, only: Iterable[str] = ()) -> list[str]:
        """Copy what a dvc.lock names, of all stages or some, to DVC's cache; give the stages that are whole there."""
        wanted, stages = set(only), stages_of(lock, f"{self.notes.path}/dvc.lock")
        stages = {name: stage for name, stage in stages.items() if not wanted or name in wanted}
        damaged = self.objects.copy_results(stages, Place(str(cache)))
        _warn(damaged, self.objects.path, "delete it there; the next make submit makes it anew")
        return [name for name, stage in stages.items() if Place(str(cache)).holds(stage)]

    def merged(self, first: bytes, second: bytes) -> bytes:
        """Two dvc.locks as one: the first's stages, but the second's where only they are there, or in storage."""
        ours, theirs = stages_of(first, "dvc.lock"), stages_of(second, f"{self.notes.path}/dvc.lock")
        return with_stages(
            first,
            {
                name: stage
                for name, stage in theirs.items()
                if name not in ours
                or (stage != ours[name] and not self.objects.holds(ours[name]) and self.objects.holds(stage))
            },
        )


def stages_of(lock: bytes, origin: str) -> Stages:
    """Map a dvc.lock to its stages by name; ValueError names its origin where it is none, or none that is whole."""
    try:
        stages: Stages = YAML().load(lock)["stages"]
        digests = [out["md5"] for stage in stages.values() for out in stage.get("outs", ()) if "md5" in out]
    except Exception:  # ruamel lets pass what some unusual files do to it
        raise ValueError(f"{origin}: not a dvc.lock, or not a whole one") from None
    for md5 in digests:
        _object(md5, origin)
    return stages


def with_stages(lock: bytes, stages: Stages) -> bytes:
    """A dvc.lock with some stages added or replaced."""
    if not stages:
        return lock
    content, text = YAML().load(lock), io.BytesIO()
    content["stages"].update(stages)
    YAML().dump(content, text)
    return text.getvalue()


def _named(stage: Mapping[str, Any]) -> list[str]:
    return [_object(out["md5"], "dvc.lock") for out in stage.get("outs", ()) if "md5" in out]


def _object(md5: Any, origin: str) -> str:
    """An object's path below a cache or remote; ValueError where the name is none, and could lead anywhere."""
    if not (isinstance(md5, str) and MD5.fullmatch(md5)):
        raise ValueError(f"{origin}: {md5!r} is not an MD5 digest")
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def _md5(name: str) -> str:
    return "".join(name.split("/")[-2:]).removesuffix(".dir")


def _warn(damaged: list[str], place: Path | str, advice: str) -> None:
    if damaged:
        print(f"{place}: {len(damaged)} damaged, {damaged[0]} is one; {advice}", file=sys.stderr, flush=True)
