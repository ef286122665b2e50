"""A bundle of one base and one small delta per task: what `models.bundle` writes and reads for strategy "taps".

spec.json                    the network without its tasks, and the fingerprint of the base
weights.safetensors          the base
<task>/delta.safetensors     the task's own tensors (see `models.deltas`), its spec and its base's fingerprint

Tasks come back in alphabetical order, with their gate scores and a frozen base, also where the base trained with them;
layers that were closed are the base's again.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.bundle_files import (
    SPEC,
    WEIGHTS,
    offline,
    open_spec,
    read_spec,
    read_weights,
    write_spec,
    write_weights,
    written_whole,
)
from models.deltas import delta_of, fingerprint, restore
from models.sharing.taps import DEFAULTS, TapsModel
from models.spec import ModelSpec

DELTA = "delta.safetensors"
ABOUT = "delta"  # the name of a file's one entry of metadata


@dataclass(frozen=True, kw_only=True)
class Delta:
    """One task's file: the spec of its network, the fingerprint of the base that it was made for, its tensors."""

    file: Path
    spec: ModelSpec
    base: str
    tensors: Mapping[str, Tensor]


def save(network: TapsModel, path: Path) -> None:
    """Write a base and the deltas of all tasks into a folder. ValueError where it holds other tasks already."""
    names = {folder_name(task) for task in network.tasks}
    if others := [folder.name for folder in _folders(path) if folder.name not in names]:
        raise ValueError(f"{path} holds other tasks already ({', '.join(others)}): save elsewhere, then use adopt_task")
    base = fingerprint(network.base.state_dict())
    write_weights(network.base, path)
    for task in network.tasks:
        tensors, about = packed(network, task, base)
        with written_whole(path / folder_name(task) / DELTA) as draft:
            save_file(tensors, str(draft), about)
    write_spec(replace(_frozen(network.spec), tasks=()), path, base=base)


def load(path: Path, raw: Mapping[str, Any]) -> TapsModel:
    """Read a base and all deltas beside it; `raw` is the folder's spec.json. ValueError names what does not fit."""
    spec, base = _spec_and_base(path, raw)
    deltas = [_fitting(folder / DELTA, spec, base) for folder in _folders(path)]
    if not deltas:
        raise ValueError(f"{path} has a base, {base}, but no task: there is no sub-folder with a {DELTA}")
    deltas.sort(key=lambda delta: delta.spec.task_names)
    network = TapsModel(offline(replace(spec, tasks=tuple(delta.spec.tasks[0] for delta in deltas))))
    read_weights(network.base, path)
    if (found := fingerprint(network.base.state_dict())) != base:
        raise ValueError(f"{path / WEIGHTS} is damaged or another base: it is {found}, {SPEC} says {base}")
    for delta in deltas:
        try:
            restore(network, delta.spec.task_names[0], delta.tensors)
        except ValueError as error:
            raise _refused(delta.file, str(error), delta.base, base) from None
    return network


def adopt_task(source: Path, task: str, path: Path) -> None:
    """Copy a task from one bundle into another of the same base; no file that stands there is touched.

    Where no bundle stands yet, one begins with the source's base. ValueError for another base names both fingerprints.
    """
    file, target = source / folder_name(task) / DELTA, path / folder_name(task) / DELTA
    theirs = _spec_and_base(source, open_spec(source))
    if not file.exists():
        raise ValueError(f"{source} has no task {task!r}; it has {', '.join(f.name for f in _folders(source))}")
    if target.exists():
        raise ValueError(f"{path} has a task {task!r} already: remove {target.parent} to replace it")
    begins = not (path / SPEC).exists()
    spec, base = theirs if begins else _spec_and_base(path, open_spec(path))
    _fitting(file, spec, base)
    for name in (WEIGHTS, SPEC) if begins else ():
        with written_whole(path / name) as draft:
            shutil.copyfile(source / name, draft)
    with written_whole(target) as draft:
        shutil.copyfile(file, draft)


def packed(network: TapsModel, task: str, base: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Map a task and its base's fingerprint to the tensors and the metadata of its file."""
    tensors = delta_of(network, task)
    spec = _frozen(replace(network.spec, tasks=(network.spec.tasks[network.spec.task_names.index(task)],)))
    about = {"base": base, "content": fingerprint(tensors), "spec": asdict(spec)}
    # One entry: safetensors writes several in an order that changes from run to run.
    return tensors, {ABOUT: json.dumps(about, ensure_ascii=False)}


def folder_name(task: str) -> str:
    """Map a task's name to that of its folder: itself, but for what no folder may be called."""
    return re.sub(r"[%/\\\0]|^\.", lambda found: f"%{ord(found[0]):02X}", task)


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir()) if path.is_dir() else []


def _spec_and_base(path: Path, raw: Mapping[str, Any]) -> tuple[ModelSpec, str]:
    if "base" not in raw:
        raise ValueError(f"{path} has no base that tasks stand beside: its strategy is {raw['strategy']!r}")
    return read_spec({name: value for name, value in raw.items() if name != "base"}), raw["base"]


def _frozen(spec: ModelSpec) -> ModelSpec:
    return replace(spec, settings=tuple((name, False if name == "joint" else value) for name, value in spec.settings))


def _fitting(file: Path, spec: ModelSpec, base: str) -> Delta:
    """Read a delta that a bundle's spec and base can take."""
    if not file.exists():
        raise ValueError(f"{file} is missing: that task has no weights beside the base {base}")
    about = _about(file)
    made_for = about.get("base", "unreadable")
    try:
        delta = Delta(file=file, spec=read_spec(about["spec"]), base=made_for, tensors=load_file(str(file)))
        whole = fingerprint(delta.tensors) == about["content"]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _refused(file, f"damaged or no delta ({error})", made_for, base) from None
    if made_for != base:
        raise _refused(file, "another base", made_for, base)
    if not whole:
        raise _refused(file, "damaged: its tensors are not those that were written", made_for, base)
    here, there = _decisive(spec), _decisive(delta.spec)
    if unlike := [f"{name} {there[name]}, here {here[name]}" for name in here if here[name] != there[name]]:
        raise _refused(file, "made for a network with " + "; ".join(unlike), made_for, base)
    (task,) = delta.spec.task_names
    if file.parent.name != folder_name(task):
        raise _refused(file, f"it holds the task {task!r}; its folder must be {folder_name(task)}", made_for, base)
    return delta


def _about(file: Path) -> Mapping[str, Any]:
    """What a file says of its tensors, also where its end is missing; nothing where that is not readable."""
    with file.open("rb") as opened:
        size = min(int.from_bytes(opened.read(8), "little"), file.stat().st_size)
        try:
            return dict(json.loads(json.loads(opened.read(size))["__metadata__"][ABOUT]))
        except (KeyError, TypeError, ValueError):
            return {}


def _decisive(spec: ModelSpec) -> Mapping[str, object]:
    """What a delta's network and a bundle's must have in common beside the base's tensors."""
    settings = DEFAULTS | dict(spec.settings)
    values = {"backbone": offline(spec).backbone, "mean": spec.mean, "std": spec.std}
    return values | {name: settings[name] for name in ("gated", "threshold")}


def _refused(file: Path, why: str, made_for: str, base: str) -> ValueError:
    return ValueError(f"{file}: {why}. It was made for the base {made_for}; the base here is {base}")
