"""The files of a bundle, spec.json and safetensors: each written whole or not at all, read without running any code."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from models.spec import ModelSpec
from models.spec_json import decode_spec

Network = TypeVar("Network", bound=nn.Module)
FORMAT = 2
SPEC, WEIGHTS = "spec.json", "weights.safetensors"
MOST_BYTES = 16 << 20  # of spec.json; one of 400 tasks has half a megabyte
UNLIKE = "the weights are not those of spec.json, or of another version"
SHOWN, MESSAGE = 3, 1000  # names of tensors, letters


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary name beside a file's own, and rename it once what is written there is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.part")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_weights(network: nn.Module, path: Path) -> None:
    """Write all tensors of a network into a bundle's folder."""
    with written_whole(path / WEIGHTS) as draft:
        save_model(network, str(draft))


def read_weights(network: nn.Module, path: Path) -> None:
    """Fill a network with the tensors in a bundle's folder. ValueError where they are damaged or another network's."""
    try:
        load_model(network, str(path / WEIGHTS))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{path}: {UNLIKE}: {error}") from None


def write_spec(spec: ModelSpec, path: Path, **more: str) -> None:
    """Write a network's spec into a bundle's folder, with more entries of that kind of bundle."""
    with written_whole(path / SPEC) as draft:
        draft.write_text(json.dumps({"format": FORMAT, **asdict(spec), **more}, indent=1) + "\n")


def open_spec(path: Path) -> dict[str, Any]:
    """Map a bundle's folder to the entries of its spec.json. ValueError says what is missing or of another format."""
    for name in (SPEC, WEIGHTS):
        if not (path / name).is_file():
            raise ValueError(f"{path} is no bundle: {name} is missing")
    file = path / SPEC
    if (size := file.stat().st_size) > MOST_BYTES:
        raise ValueError(f"{file}: {size:,} bytes, but a spec has {MOST_BYTES:,} at most")
    try:
        raw = json.loads(file.read_bytes())
    except (OSError, RecursionError, ValueError) as error:
        raise ValueError(f"{file}: not JSON, or cut off: {error}") from None
    if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
        raise ValueError(f"{file}: written by another version of this program")
    if not isinstance(raw.get("strategy"), str):
        raise ValueError(f"{file}: strategy: missing")
    return raw


def read_spec(raw: Mapping[str, Any], path: Path) -> ModelSpec:
    """Map the entries of a bundle's spec.json to the value. ValueError names the file and the entry."""
    try:
        return decode_spec(raw)
    except ValueError as error:
        raise ValueError(f"{path / SPEC}: {error}") from None


def build(make: Callable[[], Network], path: Path) -> Network:
    """Make a bundle's network, with first weights. ValueError where no network is like its spec, or like its weights.

    It is made without memory first: a spec that asks for more than the weights in the folder hold is refused in time.
    """
    refuse_unlike(outline(make, path / SPEC), path)
    return make()


def outline(make: Callable[[], Network], file: Path) -> Network:
    """Make a network without memory for its weights. ValueError names the file that its spec stands in."""
    try:
        with torch.device("meta"):
            return make()
    except Exception as error:  # whatever a value that no network has does to timm and torch
        raise ValueError(f"{file}: no network is like this: {type(error).__name__}: {error}"[:MESSAGE]) from error


def refuse_unlike(network: nn.Module, path: Path) -> None:
    """ValueError where the weights in a bundle's folder have other names or shapes than a network's."""
    found, wanted = shapes(path / WEIGHTS), network.state_dict(keep_vars=True)
    there = {id(wanted[name]) for name in found if name in wanted}  # tensors of several names are stored once
    faults = [name for name, tensor in wanted.items() if name not in found and id(tensor) not in there]
    faults += [name for name in found if name not in wanted or found[name] != tuple(wanted[name].shape)]
    if faults:
        raise ValueError(f"{path}: {UNLIKE}: {len(faults)} tensors, such as {', '.join(sorted(faults)[:SHOWN])}")


def shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Map a safetensors file to the shapes of its tensors, by name. ValueError where it is damaged."""
    try:
        with safe_open(str(file), "pt") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file} is damaged: {error}") from None


def offline(spec: ModelSpec) -> ModelSpec:
    """The same network without fetching first weights that the bundle's own replace."""
    return replace(spec, backbone=replace(spec.backbone, pretrained=False))


def stored_bytes(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> int:
    """Map tensors and their metadata to the size of their safetensors file.

    The file is the length of a JSON header (8 bytes), the header (name, type, shape and place of every tensor, widest
    types first, spaces up to a multiple of 8 bytes) and the tensors as they are.
    """
    header: dict[str, Any] = {"__metadata__": dict(about)}
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0])):
        places = [end, end + tensor.nbytes]
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": places}  # "I64" is as long
        end += tensor.nbytes
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + -(-length // 8) * 8 + end
