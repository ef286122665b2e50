"""A trained network as a folder: spec.json and weights.safetensors, read without running any code.
`python -m stages.predict <bundle> <images...>` is its command line.

A network of strategy "taps" is one base in that folder, and a sub-folder per task (see `models.taps_bundle`).
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from models import taps_bundle
from models.bundle_files import offline, open_spec, read_spec, read_weights, write_spec, write_weights
from models.sharing import SHARING, SharedModel
from models.sharing.taps import TapsModel
from models.taps_bundle import adopt_task

__all__ = ["Predictor", "adopt_task", "load", "load_network", "save"]


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
    if isinstance(network, TapsModel):
        taps_bundle.save(network, path)
        return
    write_weights(network, path)
    write_spec(network.spec, path)


def load(path: Path | str) -> Predictor:
    """Read a network back, ready to predict. ValueError says what is missing or of another format."""
    network = load_network(Path(path))
    if isinstance(network, TapsModel):
        network.drop_closed()
    return Predictor(network)


def load_network(path: Path) -> SharedModel:
    """Read a network back as it was trained, to go on with; of TAPS, with a frozen base."""
    raw = open_spec(path)
    if raw["strategy"] == "taps":
        return taps_bundle.load(path, raw)
    spec = read_spec(raw)
    network = SHARING[spec.strategy](offline(spec))
    read_weights(network, path)
    return network
