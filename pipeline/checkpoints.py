"""A job's checkpoints: the last few, each a file whose name says what its bytes are, and with it the best weights.

checkpoints/<step>-<checksum>-<epoch>-<checksum>.pt  a state; the second pair, once there is one, names its best weights
best/<epoch>-<checksum>.pt                           weights of an epoch that was the best so far

Both are written whole under names of their own, never over another file: so two processes on one job, such as one that
outlived its driver, don't harm each other. What is damaged is never used.
"""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from pipeline.storage import JobFolder

NAME = re.compile(r"(?P<step>\d{8,})-[0-9a-f]{8}(-(?P<best>(?P<epoch>\d{4,})-[0-9a-f]{8}))?\.pt")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A state that was saved, and the name of the best weights at that time, empty before the first epoch's end."""

    name: str
    state: Mapping[str, Any]

    @property
    def best(self) -> str:
        return _part(self.name, "best")


def save_best(folder: JobFolder, weights: Mapping[str, Tensor], epoch: int) -> str:
    """Keep the weights of an epoch; give the name by which checkpoints refer to them."""
    data = _packed(weights)
    name = f"{epoch:04d}-{crc32(data):08x}"
    folder.write(f"best/{name}.pt", data)
    return name


def save(folder: JobFolder, state: Mapping[str, Any], best: str, keep: int) -> None:
    """Leave a checkpoint, and remove all but the last `keep`."""
    data = _packed(state)
    name = f"{state['step']:08d}-{crc32(data):08x}"
    folder.write(f"checkpoints/{name}-{best}.pt" if best else f"checkpoints/{name}.pt", data)
    _prune(folder, keep)


def find(folder: JobFolder) -> tuple[Checkpoint | None, list[str]]:
    """Map a job's folder to its newest whole checkpoint, and the newer ones that were damaged; these are removed.

    Left there, they would count among the last few that are kept.
    """
    damaged: list[str] = []
    while names := _names(folder):  # looked at anew each time: another process may go on
        name = names[-1]
        state, best = _loaded(folder, f"checkpoints/{name}"), _part(name, "best")
        if state is not None and (not best or _loaded(folder, f"best/{best}.pt") is not None):
            return Checkpoint(name=name, state=state), damaged
        damaged.append(name)
        folder.delete(f"checkpoints/{name}")
    return None, damaged


def load(folder: JobFolder, name: str) -> Checkpoint:
    """Map the name of a checkpoint that another rank found whole to what it holds."""
    state = _unpacked(f"checkpoints/{name}", folder.fetch(f"checkpoints/{name}"))
    if state is None:
        raise ValueError(f"{folder.path}/checkpoints/{name}: one rank read it whole, another did not; run it again")
    return Checkpoint(name=name, state=state)


def kept_weights(folder: JobFolder) -> dict[str, Tensor] | None:
    """Map a job's folder to the best weights so far, None before the first epoch's end.

    ValueError where they are damaged: an older checkpoint's are others.
    """
    names = [name for name in _names(folder) if _part(name, "best")]
    if not names:
        return None
    file = f"best/{_part(names[-1], 'best')}.pt"
    weights = _loaded(folder, file)
    if weights is None:
        raise ValueError(f"{folder.path}/{file} is damaged or gone; remove {folder.path} to have the job trained again")
    return weights


def _prune(folder: JobFolder, keep: int) -> None:
    """Remove checkpoints before the last `keep` steps that have one, and best weights that none left can refer to.

    Weights of a later epoch than those may belong to a checkpoint that another process is about to write.
    """
    names = _names(folder)
    steps = sorted({int(_part(name, "step")) for name in names})[-keep:]
    kept = [name for name in names if int(_part(name, "step")) >= steps[0]]
    for name in names:
        if name not in kept:
            folder.delete(f"checkpoints/{name}")
    first = min(int(_part(name, "epoch") or 0) for name in kept)
    for name in folder.names("best"):
        if int(name.partition("-")[0]) < first:
            folder.delete(f"best/{name}")


def _names(folder: JobFolder) -> list[str]:
    """Checkpoints from the first to the last step."""
    names = [name for name in folder.names("checkpoints") if NAME.fullmatch(name)]
    return sorted(names, key=lambda name: (int(_part(name, "step")), name))


def _part(name: str, part: str) -> str:
    match = NAME.fullmatch(name)
    assert match
    return match[part] or ""


def _loaded(folder: JobFolder, file: str) -> dict[str, Any] | None:
    data = folder.read(file)
    return None if data is None else _unpacked(file, data)


def _packed(state: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def _unpacked(file: str, data: bytes) -> dict[str, Any] | None:
    """What a file holds; None where its bytes are not those that its name speaks of, or can't be loaded."""
    own = file.rpartition("/")[2].removesuffix(".pt").split("-")[1]
    if f"{crc32(data):08x}" != own:
        return None
    try:
        return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception:  # torch raises whatever unpickling raises
        return None
