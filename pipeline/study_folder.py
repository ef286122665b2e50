"""A study's results in the cluster's storage: put there stage by stage where it runs, brought back by `make fetch`.

<storage>/dvc/files/md5                    objects as DVC's own cache and remotes lay them out, named by their content
<storage>/submitted/<experiment>/dvc.lock  which of them are the study's; written after them
<storage>/submitted/<experiment>/job       the last submission

DVC's push and pull would hold its lock, which a running `dvc repro` wants between two stages, and need a plug-in for
each kind of object store; copying what is missing needs neither.
"""

import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow.fs as pafs
from ruamel.yaml import YAML

THREADS = 8  # copies at a time; an object store answers slowly and many at once


@dataclass(frozen=True)
class Place:
    """A folder on this disk or in an object store."""

    uri: str

    @cached_property
    def _place(self) -> tuple[pafs.FileSystem, str]:
        return pafs.FileSystem.from_uri(self.uri)

    def read(self, name: str) -> bytes | None:
        system, base = self._place
        if system.get_file_info(f"{base}/{name}").type != pafs.FileType.File:
            return None
        with system.open_input_stream(f"{base}/{name}") as stream:
            return stream.read()

    def write(self, name: str, data: bytes) -> None:
        """Write a file under a temporary name and rename it."""
        self._receive(name, io.BytesIO(data))

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of some files that are not there, each once."""
        system, base = self._place
        distinct = list(dict.fromkeys(names))
        infos = system.get_file_info([f"{base}/{name}" for name in distinct])
        return [name for name, info in zip(distinct, infos, strict=True) if info.type != pafs.FileType.File]

    def copy(self, names: Iterable[str], target: "Place") -> None:
        """Copy those files that are here and not there."""
        wanted = target.missing(names)
        absent = set(self.missing(wanted))
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda name: self._send(name, target), [name for name in wanted if name not in absent]))

    def _send(self, name: str, target: "Place") -> None:
        system, base = self._place
        with system.open_input_stream(f"{base}/{name}") as stream:
            target._receive(name, stream)

    def _receive(self, name: str, source: io.IOBase) -> None:
        system, base = self._place
        system.create_dir(os.path.dirname(f"{base}/{name}"), recursive=True)
        draft = f"{base}/{name}.{os.getpid()}.part"
        with system.open_output_stream(draft) as stream:
            while piece := source.read(1 << 20):
                stream.write(piece)
        system.move(draft, f"{base}/{name}")


@dataclass(frozen=True)
class StudyFolder:
    """A study's results in storage, and what its sender and the cluster tell each other there."""

    storage: str
    experiment: str

    @property
    def name(self) -> str:
        """The experiment as a name that folders and Ray's jobs may bear."""
        return re.sub(r"[^\w-]+", "-", self.experiment)

    @property
    def notes(self) -> Place:
        return Place(f"{self.storage}/submitted/{self.name}")

    @property
    def objects(self) -> Place:
        return Place(f"{self.storage}/dvc")

    def keep(self, lock: bytes, cache: Path) -> None:
        """Copy what a dvc.lock names from DVC's cache to storage, then the lock."""
        _copy_named(lock, Place(str(cache)), self.objects)
        self.notes.write("dvc.lock", lock)

    def bring(self, lock: bytes, cache: Path, only: Iterable[str] = ()) -> list[str]:
        """Copy what a dvc.lock names, of all stages or some, to DVC's cache; give the stages that are whole there."""
        here = Place(str(cache))
        _copy_named(lock, self.objects, here, only)
        return [
            stage for stage, named in _outs(lock, only).items() if not here.missing([*named, *_listed(named, here)])
        ]


def _outs(lock: bytes, only: Iterable[str] = ()) -> dict[str, list[str]]:
    """Map the stages of a dvc.lock to the objects of their outs."""
    stages: Mapping[str, Mapping] = YAML(typ="safe").load(lock.decode())["stages"]
    wanted = set(only) or set(stages)
    return {
        name: [_file(out["md5"]) for out in stage.get("outs", []) if "md5" in out]
        for name, stage in stages.items()
        if name in wanted
    }


def _file(md5: str) -> str:
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def _listed(named: Iterable[str], place: Place) -> Iterator[str]:
    """The files of those objects that are lists of a folder's files."""
    for name in named:
        if name.endswith(".dir"):
            yield from (_file(entry["md5"]) for entry in json.loads(place.read(name) or b"[]"))


def _copy_named(lock: bytes, source: Place, target: Place, only: Iterable[str] = ()) -> None:
    named = [name for names in _outs(lock, only).values() for name in names]
    source.copy(_listed(named, source), target)
    source.copy(named, target)
