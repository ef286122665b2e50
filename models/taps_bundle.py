"""A bundle of one base and one small delta per task: what `models.bundle` writes and reads for strategy "taps".

spec.json                    the network without its tasks, and the fingerprint of the base
weights.safetensors          the base
<task>/delta.safetensors     the task's own tensors (see `models.deltas`), its spec and its base's fingerprint

Tasks come back in alphabetical order, with their gate scores and a frozen base, also where the base trained with them;
layers that were closed are the base's again.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from models.bundle_files import (
    SPEC,
    WEIGHTS,
    offline,
    open_spec,
    outline,
    read_spec,
    read_weights,
    refuse_unlike,
    write_spec,
    write_weights,
    written_whole,
)
from models.delta_files import (
    DELTA,
    Kind,
    adopt,
    describe,
    folder_name,
    folders,
    normalised,
    read_delta,
    refuse_other_heads,
    refuse_others,
    refused,
)
from models.deltas import delta_of, fingerprint, restore
from models.sharing.taps import DEFAULTS, TapsModel
from models.spec import ModelSpec


def save(network: TapsModel, path: Path) -> None:
    """Write a base and the deltas of all tasks into a folder. ValueError where it holds other tasks already."""
    refuse_others(path, KIND, set(network.tasks))
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
    deltas = [read_delta(folder / DELTA, KIND, spec, base) for folder in folders(path)]
    if not deltas:
        raise ValueError(f"{path} has a base, {base}, but no task: there is no sub-folder with a {DELTA}")
    deltas.sort(key=lambda delta: delta.spec.task_names)
    whole = offline(replace(spec, tasks=tuple(delta.spec.tasks[0] for delta in deltas)))
    sketch = outline(lambda: TapsModel(whole), path / SPEC)
    refuse_unlike(sketch.base, path)
    for delta, head in zip(deltas, sketch.heads, strict=True):
        refuse_other_heads(delta, {"head": head}, base)
    network = TapsModel(whole)
    read_weights(network.base, path)
    if (found := fingerprint(network.base.state_dict())) != base:
        raise ValueError(f"{path / WEIGHTS} is damaged or another base: it is {found}, {SPEC} says {base}")
    for delta in deltas:
        try:
            restore(network, delta.spec.task_names[0], delta.tensors)
        except ValueError as error:
            raise refused(delta.file, str(error), delta.base, base) from None
    return network


def adopt_task(source: Path, task: str, path: Path) -> None:
    """Copy a task from one bundle into another of the same base, see `models.delta_files.adopt`."""
    folder = source / folder_name(task)
    if not (folder / DELTA).is_file():
        raise ValueError(f"{source} has no task {task!r}; it has {', '.join(f.name for f in folders(source))}")
    adopt(KIND, folder, path)


def packed(network: TapsModel, task: str, base: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Map a task and its base's fingerprint to the tensors and the metadata of its file."""
    tensors = delta_of(network, task)
    spec = _frozen(replace(network.spec, tasks=(network.spec.tasks[network.spec.task_names.index(task)],)))
    return tensors, describe(tensors, spec, base)


def _spec_and_base(path: Path, raw: Mapping[str, Any]) -> tuple[ModelSpec, str]:
    if "base" not in raw:
        raise ValueError(f"{path} has no base that tasks stand beside: its strategy is {raw['strategy']!r}")
    return read_spec({name: value for name, value in raw.items() if name != "base"}, path), str(raw["base"])


def _frozen(spec: ModelSpec) -> ModelSpec:
    return replace(spec, settings=tuple((name, False if name == "joint" else value) for name, value in spec.settings))


def _decisive(spec: ModelSpec) -> Mapping[str, object]:
    settings = DEFAULTS | dict(spec.settings)
    return normalised(spec) | {name: settings[name] for name in ("gated", "threshold")}


def _task_of(spec: ModelSpec) -> str:
    (task,) = spec.task_names
    return task


KIND = Kind(
    holds="task",
    named=_task_of,
    decisive=_decisive,
    base_of=lambda path: _spec_and_base(path, open_spec(path)),
)
