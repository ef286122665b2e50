"""Where jobs keep their state: one folder a job, on this disk or in an object store, each file written whole or not."""

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.fs as pafs


@dataclass(frozen=True)
class JobFolder:
    """`<storage>/jobs/<key>`: checkpoint.pt, best.pt, history.jsonl, bundle/, and at the end result.json."""

    storage: str
    key: str

    @cached_property
    def _place(self) -> tuple[pafs.FileSystem, str]:
        system, path = pafs.FileSystem.from_uri(self.storage)
        return system, f"{path}/jobs/{self.key}"

    @property
    def path(self) -> str:
        return f"{self.storage}/jobs/{self.key}"

    def write(self, name: str, data: bytes) -> None:
        """Write a file under a temporary name and rename it."""
        system, base = self._place
        system.create_dir(os.path.dirname(f"{base}/{name}"), recursive=True)
        draft = f"{base}/{name}.{os.getpid()}.part"
        with system.open_output_stream(draft) as stream:
            stream.write(data)
        system.move(draft, f"{base}/{name}")

    def read(self, name: str) -> bytes | None:
        system, base = self._place
        if system.get_file_info(f"{base}/{name}").type != pafs.FileType.File:
            return None
        with system.open_input_stream(f"{base}/{name}") as stream:
            return stream.read()

    def write_state(self, name: str, state: Mapping[str, Any]) -> None:
        import torch

        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        self.write(name, buffer.getvalue())

    def read_state(self, name: str) -> dict[str, Any] | None:
        import torch

        data = self.read(name)
        return None if data is None else torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")

    def write_history(self, records: Sequence[Mapping[str, Any]]) -> None:
        self.write("history.jsonl", "".join(json.dumps(record) + "\n" for record in records).encode())

    def read_history(self) -> list[dict[str, Any]]:
        data = self.read("history.jsonl")
        return [] if data is None else [json.loads(line) for line in data.decode().splitlines()]

    def write_result(self, result: Mapping[str, Any]) -> None:
        """The last file of a job: where it stands, the job is done."""
        self.write("result.json", json.dumps(result, indent=1).encode())

    def read_result(self) -> dict[str, Any] | None:
        data = self.read("result.json")
        return None if data is None else json.loads(data)

    def upload(self, folder: Path, name: str) -> None:
        """Copy a folder of this disk, with its sub-folders, to a sub-folder of the job."""
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            self.write(f"{name}/{file.relative_to(folder).as_posix()}", file.read_bytes())

    def download(self, name: str, folder: Path) -> None:
        """Copy a sub-folder of the job, with those in it, to this disk."""
        system, base = self._place
        folder.mkdir(parents=True, exist_ok=True)
        for info in system.get_file_info(pafs.FileSelector(f"{base}/{name}", recursive=True)):
            if info.type != pafs.FileType.File or info.extension == "part":  # a killed writer's
                continue
            copy = folder / PurePosixPath(info.path).relative_to(f"{base}/{name}")
            copy.parent.mkdir(parents=True, exist_ok=True)
            with system.open_input_stream(info.path) as stream:
                copy.write_bytes(stream.read())
