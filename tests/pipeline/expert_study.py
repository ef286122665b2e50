"""Two data sets learned jointly by experts and two to adapt to: settings, invented manifests, tiny images."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.sharing.moe import MoeModel
from models.spec import Route
from pipeline import preparing
from pipeline.artifacts import DatasetManifest, write_manifests
from pipeline.config import Config
from pipeline.machine import Machine
from pipeline.moe_jobs import joint_tasks, moe_spec
from tests.pipeline.cases import settings
from tests.pipeline.number_source import COLUMNS, Numbers, rows

SETS: dict[str, dict[str, Any]] = {
    "square": {"size": (32, 32), "batch": 8, "weight": 3.0},
    "high": {"size": (48, 32), "batch": 4, "weight": 1.0},
    "wide": {"size": (32, 40), "batch": 6, "weight": 1.0},
    "other": {"size": (32, 32), "batch": 6, "weight": 1.0},
}
TASKS: dict[str, dict[str, Any]] = {
    "kind": {"kind": "classification", "dataset": "square"},
    "field": {"kind": "depth", "dataset": "high", "head_width": 8},
    "fresh": {"kind": "attributes", "dataset": "wide", "column": "flags"},
    "newest": {"kind": "depth", "dataset": "other", "column": "field", "head_width": 8},
}
MOE: dict[str, Any] = {"lams": [0.1], "experts": 4, "top_k": 2, "placement": ["layers.2*", "layers.3*"]}
ADAPT: dict[str, Any] = {"tasks": ["fresh"], "epochs": 1}
LAYERS = ["layers.2.blocks.0.mlp", "layers.2.blocks.1.mlp", "layers.3.blocks.0.mlp"]
SINGLE: dict[str, dict[str, Any]] = {
    name: {
        "metric": {"depth": "rmse"}.get(task["kind"], "accuracy"),
        "higher_is_better": task["kind"] != "depth",
        "val": 0.5,
        "test": 0.4,
        "job": f"key-{name}",
        "epoch": 3,
        "seconds": 2.0,
        "params": 1000,
        "flops": 70,
    }
    for name, task in TASKS.items()
}


def study(*, moe: Mapping[str, Any] | None = None, adapt: Mapping[str, Any] | None = None, **sections: Any) -> Config:
    """params.yaml of the study, as a value."""
    given: dict[str, Any] = {
        "backbone": {"name": "swin_nano_patch4_window4", "locations": 4},
        "train": {"epochs": 1, "lr": 0.01},
        "moe": MOE | dict(moe or {}),
        "adapt": ADAPT | dict(adapt or {}),
    }
    raw = settings(**given | sections).model_dump()
    raw["datasets"] = {name: raw["datasets"]["tiny"] | {"images": None} | item for name, item in SETS.items()}
    raw["tasks"] = dict(TASKS)
    return Config.model_validate(raw)


def manifests() -> dict[str, DatasetManifest]:
    """What `prepare` would know of the data sets; no two have the same colours."""
    return {
        name: DatasetManifest(
            name=name,
            counts={},
            size=item["size"],
            columns=COLUMNS,
            mean=(0.1 * place, 0.5, 0.5),
            std=(0.2, 0.2, 0.1 + 0.1 * place),
            fingerprint=f"{name} as it was",
            licence="none",
        )
        for place, (name, item) in enumerate(SETS.items())
    }


def network_of(config: Config, *routes: Route, **changes: Any) -> MoeModel:
    """The network of the joint tasks, some of whose data sets may choose from fewer experts."""
    spec = moe_spec(config, manifests(), joint_tasks(config))
    return MoeModel(replace(spec, routes=routes, **changes))


def prepare_all(folder: Path) -> dict[str, DatasetManifest]:
    """Store 24 training, 7 validation and 7 test images of each data set, as `prepare` does, in this process."""
    config = study()
    listed = [
        replace(row, split=("train", "val", "test")[(int(row.id) >= 24) + (int(row.id) >= 31)]) for row in rows(38)
    ]
    found = {}
    for name, item in SETS.items():
        source, machine = Numbers(listed, size=item["size"]), Machine(prepare_workers=1)
        declared = preparing.declare(name, config, source)
        found[name] = preparing.prepare_dataset(declared, source, config, machine, folder, lambda _: None)
    write_manifests(folder, found.values())
    return found
