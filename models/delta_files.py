"""The sub-folders of a bundle with one base: a delta.safetensors in each, read or refused, copied to other bundles.

What a sub-folder stands for, a task or a data set, is its `Kind`. A file's metadata hold the spec of the network that
its tensors make with the base, the fingerprint of that base and one of the tensors.
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models.bundle_files import SPEC, WEIGHTS, offline, written_whole
from models.deltas import fingerprint, refuse_misfits
from models.spec import ModelSpec
from models.spec_json import decode_spec

DELTA = "delta.safetensors"
ABOUT = "delta"  # the name of a file's one entry of metadata


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What the sub-folders of a bundle hold.

    holds      a task, or a data set
    named      maps a delta's spec to the name of what it holds
    decisive   maps a spec to what a delta's network and a bundle's must have in common beside the base's tensors
    base_of    maps a bundle's folder to its spec and its base's fingerprint
    """

    holds: str
    named: Callable[[ModelSpec], str]
    decisive: Callable[[ModelSpec], Mapping[str, object]]
    base_of: Callable[[Path], tuple[ModelSpec, str]]


@dataclass(frozen=True, kw_only=True)
class Delta:
    """One file: the spec of its network, the fingerprint of the base that it was made for, its tensors."""

    file: Path
    spec: ModelSpec
    base: str
    tensors: Mapping[str, Tensor]


def normalised(spec: ModelSpec) -> dict[str, object]:
    """Map a spec to what networks on one base have in common: the backbone, and how images come to it."""
    return {"backbone": offline(spec).backbone, "mean": spec.mean, "std": spec.std}


def describe(tensors: Mapping[str, Tensor], spec: ModelSpec, base: str) -> dict[str, str]:
    """Map a delta to the metadata of its file."""
    about = {"base": base, "content": fingerprint(tensors), "spec": asdict(spec)}
    # One entry: safetensors writes several in an order that changes from run to run.
    return {ABOUT: json.dumps(about, ensure_ascii=False)}


def folder_name(name: str) -> str:
    """Map a name to that of its folder: itself, but for what no folder may be called."""
    return re.sub(r"[%/\\\0]|^\.", lambda found: f"%{ord(found[0]):02X}", name)


def folders(path: Path) -> list[Path]:
    """The sub-folders of a bundle, in alphabetical order."""
    return sorted(folder for folder in path.iterdir() if folder.is_dir()) if path.is_dir() else []


def refuse_others(path: Path, kind: Kind, names: set[str]) -> None:
    """ValueError where a folder to save in holds what is not of these names."""
    known = {folder_name(name) for name in names}
    if others := [folder.name for folder in folders(path) if folder.name not in known]:
        raise ValueError(
            f"{path} holds other {kind.holds}s already ({', '.join(others)}): save elsewhere, then use adopt_task"
        )


def read_delta(file: Path, kind: Kind, spec: ModelSpec, base: str) -> Delta:
    """Read a delta that a bundle's spec and base can take. ValueError names both fingerprints."""
    if not file.is_file():
        raise ValueError(f"{file} is missing: that {kind.holds} has no weights beside the base {base}")
    about = read_about(file)
    made_for = about.get("base", "unreadable")
    try:
        delta = Delta(file=file, spec=decode_spec(about["spec"]), base=made_for, tensors=load_file(str(file)))
        whole, name = fingerprint(delta.tensors) == about["content"], kind.named(delta.spec)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise refused(file, f"damaged or no delta ({error})", made_for, base) from None
    if made_for != base:
        raise refused(file, "another base", made_for, base)
    if not whole:
        raise refused(file, "damaged: its tensors are not those that were written", made_for, base)
    here, there = kind.decisive(spec), kind.decisive(delta.spec)
    if unlike := [f"{name} {there[name]}, here {here[name]}" for name in here if here[name] != there[name]]:
        raise refused(file, "made for a network with " + "; ".join(unlike), made_for, base)
    if file.parent.name != folder_name(name):
        why = f"it holds the {kind.holds} {name!r}; its folder must be {folder_name(name)}"
        raise refused(file, why, made_for, base)
    return delta


def refuse_other_heads(delta: Delta, heads: Mapping[str, nn.Module], base: str) -> None:
    """ValueError where a delta's heads, by the names that its tensors begin with, aren't those of its network."""
    places = {f"{name}.{key}": tensor for name, head in heads.items() for key, tensor in head.state_dict().items()}
    found = {name: tensor for name, tensor in delta.tensors.items() if name.startswith("head")}
    try:
        refuse_misfits(places, found)
    except ValueError as error:
        raise refused(delta.file, str(error), delta.base, base) from None


def read_about(file: Path) -> Mapping[str, Any]:
    """What a file says of its tensors, also where its end is missing; nothing where that is not readable."""
    with file.open("rb") as opened:
        size = min(int.from_bytes(opened.read(8), "little"), file.stat().st_size)
        try:
            return dict(json.loads(json.loads(opened.read(size))["__metadata__"][ABOUT]))
        except (KeyError, RecursionError, TypeError, ValueError):
            return {}


def refused(file: Path, why: str, made_for: str, base: str) -> ValueError:
    """The error that tells why a delta does not fit a base."""
    return ValueError(f"{file}: {why}. It was made for the base {made_for}; the base here is {base}")


def adopt(kind: Kind, folder: Path, path: Path) -> None:
    """Copy a sub-folder of one bundle into another bundle of the same base; no file that stands there is touched.

    Where no bundle stands yet, one begins with the source's base. ValueError for another base names both fingerprints.
    """
    file, target = folder / DELTA, path / folder.name / DELTA
    theirs = kind.base_of(folder.parent)
    if target.exists():
        raise ValueError(f"{path} has a {kind.holds} {folder.name!r} already: remove {target.parent} to replace it")
    begins = not (path / SPEC).exists()
    spec, base = theirs if begins else kind.base_of(path)
    read_delta(file, kind, spec, base)
    for part in (WEIGHTS, SPEC) if begins else ():
        with written_whole(path / part) as draft:
            shutil.copyfile(folder.parent / part, draft)
    with written_whole(target) as draft:
        shutil.copyfile(file, draft)
