"""A trained network as a folder: spec.json and weights.safetensors, read without running any code.
`python -m stages.predict <bundle> <images...>` is its command line.

A network that grew from a base has that in the folder, and a sub-folder for each task of strategy "taps" (see
`models.taps_bundle`), for each data set that was added to one of strategy "moe" (see `models.moe_bundle`).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models import moe_bundle, taps_bundle
from models.bundle_files import SPEC, build, offline, open_spec, read_spec, read_weights, write_spec, write_weights
from models.sharing import SHARING, SharedModel
from models.sharing.taps import TapsModel

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
    kept = network.kept()
    if kept.spec.strategy in WITH_BASE:
        WITH_BASE[kept.spec.strategy].save(kept, path)
        return
    write_weights(kept, path)
    write_spec(kept.spec, path)


def load(path: Path | str) -> Predictor:
    """Read a network back, ready to predict. ValueError says what is missing or of another format."""
    network = load_network(Path(path))
    if isinstance(network, TapsModel):
        network.drop_closed()
    return Predictor(network)


def load_network(path: Path) -> SharedModel:
    """Read a network back as it was trained, to go on with; of TAPS, with a frozen base."""
    raw = open_spec(path)
    if raw["strategy"] in WITH_BASE:
        return WITH_BASE[raw["strategy"]].load(path, raw)
    spec = read_spec(raw, path)
    if spec.strategy not in SHARING:
        raise ValueError(f"{path / SPEC}: strategy {spec.strategy!r}: use one of {', '.join(SHARING)}")
    network = build(lambda: SHARING[spec.strategy](offline(spec)), path)
    read_weights(network, path)
    return network


def adopt_task(source: Path, task: str, path: Path) -> None:
    """Copy a task from one bundle into another of the same base; no file that stands there is touched.

    Where no bundle stands yet, one begins with the source's base. ValueError for another base names both fingerprints.
    """
    strategy = open_spec(source)["strategy"]
    if strategy not in WITH_BASE:
        raise ValueError(f"{source} has no base that tasks stand beside: its strategy is {strategy!r}")
    WITH_BASE[strategy].adopt_task(source, task, path)


class WithBase(NamedTuple):
    """How bundles of one base and sub-folders beside it are written, read and added to."""

    save: Callable[[Any, Path], None]
    load: Callable[[Path, Mapping[str, Any]], SharedModel]
    adopt_task: Callable[[Path, str, Path], None]


WITH_BASE = {
    "taps": WithBase(taps_bundle.save, taps_bundle.load, taps_bundle.adopt_task),
    "moe": WithBase(moe_bundle.save, moe_bundle.load, moe_bundle.adopt_task),
}
