"""A bundle of one network with experts and what data sets added to it: what `models.bundle` does for strategy "moe".

spec.json                        the base: its tasks and routes
weights.safetensors              the base's tensors; a network to which nothing was added is these two files
<data set>/delta.safetensors     what a data set adds (see `models.expert_growth`), its spec, its base's fingerprint

Data sets come back in alphabetical order. In their files own experts are numbered from the base's on, so that a file
does not depend on which others stand beside it.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from models.bundle_files import (
    SPEC,
    WEIGHTS,
    build,
    offline,
    open_spec,
    outline,
    read_spec,
    read_weights,
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
    read_about,
    read_delta,
    refuse_other_heads,
    refuse_others,
)
from models.deltas import fingerprint
from models.expert_growth import Growth, come_apart, grow
from models.sharing.moe import MoeModel
from models.spec import ModelSpec


def save(network: MoeModel, path: Path) -> None:
    """Write a network, or the base of one that has grown and its growths. ValueError where other data sets stand."""
    base, growths = come_apart(network)
    refuse_others(path, KIND, {growth.route.dataset for growth in growths})
    write_weights(base, path)
    made_for = _fingerprint(path) if growths else ""
    for growth in growths:
        about = describe(growth.tensors, growth.spec, made_for)
        with written_whole(path / folder_name(growth.route.dataset) / DELTA) as draft:
            save_file(dict(growth.tensors), str(draft), about)
    write_spec(base.spec, path)


def load(path: Path, raw: Mapping[str, Any]) -> MoeModel:
    """Read a network and all that data sets added; `raw` is the folder's spec.json. ValueError names what is wrong."""
    spec = offline(read_spec(raw, path))
    network = build(lambda: MoeModel(spec), path)
    read_weights(network, path)
    found = folders(path)
    if not found:
        return network
    base = _fingerprint(path)
    deltas = [read_delta(folder / DELTA, KIND, spec, base) for folder in found]
    for delta in deltas:
        sketch = outline(partial(MoeModel, offline(delta.spec)), delta.file)
        refuse_other_heads(delta, {f"heads.{place}": head for place, head in enumerate(sketch.heads)}, base)
    try:
        return grow(network, [Growth(spec=delta.spec, tensors=delta.tensors) for delta in deltas])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}. The base here is {base}") from None


def adopt_task(source: Path, task: str, path: Path) -> None:
    """Copy the data set of a task into another bundle of the same base, see `models.delta_files.adopt`.

    ValueError for a task that no data set beside the base has, or one that is there already.
    """
    beside = _tasks_beside(source)
    # A file that can't be read may be the one: what reads it says so.
    holding = [name for name, tasks in beside.items() if task in tasks or not tasks]
    if not holding:
        held = ", ".join(name for tasks in beside.values() for name in tasks)
        raise ValueError(f"{source} has no task {task!r} beside its base; it has {held or 'none'}")
    folder = max(holding, key=lambda name: task in beside[name])
    if (path / SPEC).exists():
        base = _spec_of(path).tasks
        others = [name for other, tasks in _tasks_beside(path).items() if other != folder for name in tasks]
        if taken := sorted({*others, *(known.name for known in base)} & set(beside[folder])):
            raise ValueError(f"{path} has a task {taken[0]!r} already")
        if folder in {folder_name(known.dataset) for known in base}:
            raise ValueError(f"{path} has a data set {folder!r} already, in its base")
    adopt(KIND, source / folder, path)


def _tasks_beside(path: Path) -> dict[str, tuple[str, ...]]:
    """Map a bundle to the tasks in each of its sub-folders, by the folder's name; to none where it can't be read."""
    files = {folder.name: folder / DELTA for folder in folders(path)}
    abouts = {name: read_about(file) if file.is_file() else {} for name, file in files.items()}
    return {name: _task_names(about) for name, about in abouts.items()}


def _task_names(about: Mapping[str, Any]) -> tuple[str, ...]:
    try:
        return tuple(str(task["name"]) for task in about["spec"]["tasks"])
    except (KeyError, TypeError):
        return ()


def _spec_of(path: Path) -> ModelSpec:
    raw = open_spec(path)
    if raw["strategy"] != "moe":
        raise ValueError(f"{path} has no base that data sets stand beside: its strategy is {raw['strategy']!r}")
    return read_spec(raw, path)


def _fingerprint(path: Path) -> str:
    """The fingerprint of the base in a bundle's folder."""
    try:
        return fingerprint(load_file(str(path / WEIGHTS)))
    except SafetensorError as error:
        raise ValueError(f"{path / WEIGHTS} is damaged: {error}") from None


def _dataset_of(spec: ModelSpec) -> str:
    (route,) = spec.routes
    return route.dataset


KIND = Kind(
    holds="data set",
    named=_dataset_of,
    decisive=normalised,
    base_of=lambda path: (_spec_of(path), _fingerprint(path)),
)
