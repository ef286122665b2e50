"""The files of a bundle, spec.json and safetensors: each written whole or not at all, read without running any code."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from models.spec import BackboneSpec, Column, ModelSpec, Route, TaskSpec

FORMAT = 2
SPEC, WEIGHTS = "spec.json", "weights.safetensors"


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
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"{path}: the weights are not those of spec.json, or of another version: {error}") from None


def write_spec(spec: ModelSpec, path: Path, **more: str) -> None:
    """Write a network's spec into a bundle's folder, with more entries of that kind of bundle."""
    with written_whole(path / SPEC) as draft:
        draft.write_text(json.dumps({"format": FORMAT, **asdict(spec), **more}, indent=1) + "\n")


def open_spec(path: Path) -> dict[str, Any]:
    """Map a bundle's folder to the entries of its spec.json. ValueError says what is missing or of another format."""
    for name in (SPEC, WEIGHTS):
        if not (path / name).exists():
            raise ValueError(f"{path} is no bundle: {name} is missing")
    raw = json.loads((path / SPEC).read_text())
    if raw.pop("format") != FORMAT:
        raise ValueError(f"{path}/{SPEC}: written by another version of this program")
    return raw


def read_spec(raw: Mapping[str, Any]) -> ModelSpec:
    """Map the JSON form of a spec back to the value; the inverse of `dataclasses.asdict`."""
    tasks = tuple(
        TaskSpec(
            **{
                **task,
                "column": _column(task["column"]),
                "options": tuple((name, value) for name, value in task["options"]),
                "size": tuple(task["size"]) if task.get("size") else None,
            }
        )
        for task in raw["tasks"]
    )
    backbone = BackboneSpec(**{**raw["backbone"], "size": tuple(raw["backbone"]["size"])})
    groups = _rows(raw["groups"])
    routes = tuple(
        Route(**{**route, "experts": _rows(route["experts"]), "own": _rows(route["own"])})
        for route in raw.get("routes", ())
    )
    stats = {"mean": tuple(raw["mean"]), "std": tuple(raw["std"])}
    settings = tuple((name, tuple(value) if isinstance(value, list) else value) for name, value in raw["settings"])
    values = {"tasks": tasks, "backbone": backbone, "groups": groups, "settings": settings, "routes": routes}
    return ModelSpec(**{**raw, **stats, **values})


def _column(item: Mapping[str, Any]) -> Column:
    """Bundles from before columns knew their classes' shares have none."""
    return Column(**{**item, "classes": tuple(item["classes"]), "shares": tuple(item.get("shares", ()))})


def _rows(rows: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in rows)


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
