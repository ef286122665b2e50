"""A trained network as a folder: spec.json and weights.safetensors, read without running any code.
`python -m stages.predict <bundle> <images...>` is its command line.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from models.sharing import SHARING, SharedModel
from models.spec import BackboneSpec, Column, ModelSpec, TaskSpec

FORMAT = 1


class Predictor(nn.Module):
    """A trained network as its user sees it: images [B, 3, H, W] (uint8 or 0..1) -> {task: prediction}."""

    def __init__(self, network: SharedModel) -> None:
        super().__init__()
        self.network = network.eval()

    @torch.inference_mode()
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        outputs = self.network(images)
        return {name: self.network.tasks[name].predict(output.float()) for name, output in outputs.items()}

    def only(self, task: str) -> "Predictor":
        """That task's network alone."""
        if task not in self.network.tasks:
            raise ValueError(f"no task {task!r}; this network has {', '.join(self.network.tasks)}")
        return Predictor(self.network.only(task))


def save(network: SharedModel, path: Path) -> None:
    """Write a network's spec and weights into a folder."""
    path.mkdir(parents=True, exist_ok=True)
    save_model(network, str(path / "weights.safetensors"))
    (path / "spec.json").write_text(json.dumps({"format": FORMAT, **asdict(network.spec)}, indent=1) + "\n")


def load(path: Path | str) -> Predictor:
    """Read a network back, ready to predict. ValueError says what is missing or of another format."""
    return Predictor(load_network(Path(path)))


def load_network(path: Path) -> SharedModel:
    """Read a network back as it was trained, to go on with."""
    for name in ("spec.json", "weights.safetensors"):
        if not (path / name).exists():
            raise ValueError(f"{path} is no bundle: {name} is missing")
    raw = json.loads((path / "spec.json").read_text())
    if raw.pop("format") != FORMAT:
        raise ValueError(f"{path}/spec.json: written by another version of this program")
    spec = read_spec(raw)
    network = SHARING[spec.strategy](_offline(spec))
    try:
        load_model(network, str(path / "weights.safetensors"))
    except RuntimeError as error:
        raise ValueError(f"{path}: the weights are not those of spec.json, or of another version: {error}") from None
    return network


def read_spec(raw: Mapping[str, Any]) -> ModelSpec:
    """Map the JSON form of a spec back to the value; the inverse of `dataclasses.asdict`."""
    tasks = tuple(
        TaskSpec(
            **{
                **task,
                "column": Column(**{**task["column"], "classes": tuple(task["column"]["classes"])}),
                "options": tuple((name, value) for name, value in task["options"]),
            }
        )
        for task in raw["tasks"]
    )
    backbone = BackboneSpec(**{**raw["backbone"], "size": tuple(raw["backbone"]["size"])})
    groups = tuple(tuple(row) for row in raw["groups"])
    stats = {"mean": tuple(raw["mean"]), "std": tuple(raw["std"])}
    return ModelSpec(**{**raw, **stats, "tasks": tasks, "backbone": backbone, "groups": groups})


def _offline(spec: ModelSpec) -> ModelSpec:
    """The same network without fetching first weights that the bundle's own replace."""
    return replace(spec, backbone=replace(spec.backbone, pretrained=False))
