"""What the taps stage trains: which jobs a sweep is made of, and what training them does to gates and base."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.branch_tree import BranchTree
from models.sharing.taps import TapsModel
from pipeline.adapting import (
    Adaptation,
    adapted_tasks,
    base_of,
    baseline_jobs,
    better_half,
    matched_jobs,
    shared_job,
    taps_jobs,
)
from pipeline.artifacts import DatasetManifest, read_manifests
from pipeline.checkpoints import kept_weights
from pipeline.config import Config
from pipeline.jobs import TrainJob, tree_job
from pipeline.loop import conclude, train
from pipeline.optimise import build_optimiser
from pipeline.storage import JobFolder
from pipeline.training_state import build
from tests.pipeline.cases import DECODING, make_job, settings, site

pytestmark = pytest.mark.filterwarnings(DECODING)
SINGLE: dict[str, dict[str, Any]] = {name: {"val": 0.5, "job": f"key-{name}"} for name in ("scene", "depth")}


def study(**taps: Any) -> Config:
    return settings(taps={"epochs": 2, **taps})


def sweep(config: Config, prepared: Path) -> list[Adaptation]:
    manifests = read_manifests(prepared)
    return taps_jobs(config, manifests, base_of(config, manifests, "base-key"), SINGLE)


def test_a_job_for_every_task_penalty_and_learning_rate(prepared: Path) -> None:
    found = sweep(study(lams=[0.0, 0.5, 1.0], lrs=[0.1, 0.01]), prepared)
    assert len(found) == len({item.job.key for item in found}) == len({item.job.name for item in found}) == 12
    assert {(item.task, item.lam, item.lr) for item in found} == {
        (task, lam, lr) for task in ("scene", "depth") for lam in (0.0, 0.5, 1.0) for lr in (0.1, 0.01)
    }
    for item in found:
        assert (item.job.lam, item.job.train.lr) == (item.lam, item.lr)
        assert item.job.model.task_names == (item.task,)
        assert item.job.start == (("base", "base-key"),)


def test_a_further_penalty_leaves_the_other_jobs_as_they_were(prepared: Path) -> None:
    few, more = (sweep(study(lams=lams), prepared) for lams in ([0.5], [0.25, 0.5]))
    assert {item.job.key for item in few} < {item.job.key for item in more}


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 0.2},
        {"score": 0.3},
        {"score_lr": 2.0},
        {"lam_warmup_epochs": 1},
        {"gated": ["*conv1"]},
        {"weight_decay": 0.1},
        {"epochs": 3},
        {"optimiser": "adamw"},
    ],
    ids=str,
)
def test_all_settings_of_the_section_reach_the_job(prepared: Path, change: dict[str, Any]) -> None:
    before, after = (sweep(study(**taps), prepared) for taps in ({}, change))
    assert not {item.job.key for item in before} & {item.job.key for item in after}


def test_jointly_there_is_one_job_for_all_tasks(prepared: Path) -> None:
    (item,) = sweep(study(lams=[1.0], joint=True), prepared)
    assert item.task == ""
    assert item.job.model.task_names == ("scene", "depth")
    assert dict(item.job.model.settings)["joint"] is True


def test_the_base_is_one_task_s_network_all_tasks_or_timm_s(prepared: Path) -> None:
    manifests = read_manifests(prepared)
    bases = {name: base_of(study(base=name), manifests, "key") for name in ("scene", "shared", "pretrained")}
    assert {name: base.kind for name, base in bases.items()} == {
        "scene": "task",
        "shared": "shared",
        "pretrained": "pretrained",
    }
    assert bases["scene"].spec.task_names == ("scene",)
    assert {name: base.spec.backbone.pretrained for name, base in bases.items()} == {
        "scene": False,
        "shared": False,
        "pretrained": True,
    }
    assert adapted_tasks(study(base="scene")) == ["depth"]
    assert adapted_tasks(study(base="shared")) == ["scene", "depth"]
    assert adapted_tasks(study(base="shared", tasks=["depth"])) == ["depth"]


def test_images_are_normalised_as_they_were_for_the_base(prepared: Path) -> None:
    manifests = dict(read_manifests(prepared))
    other = replace(manifests["tiny"], name="other", mean=(0.1, 0.2, 0.3))
    manifests["other"] = other
    raw = study(base="scene").model_dump()
    raw["datasets"]["other"] = raw["datasets"]["tiny"]
    raw["tasks"]["depth"]["dataset"] = "other"
    config = Config.model_validate(raw)
    (item,) = {item.task: item for item in taps_jobs(config, manifests, base_of(config, manifests), SINGLE)}.values()
    assert item.job.model.mean == manifests["tiny"].mean
    assert [name for name, *_ in item.job.datasets] == ["other"]
    assert not item.job.model.backbone.dynamic
    manifests["other"] = replace(other, size=(16, 16))
    base = base_of(config, manifests)
    (item,) = {item.task: item for item in taps_jobs(config, manifests, base, SINGLE)}.values()
    assert item.job.model.backbone == base.spec.backbone
    assert base.spec.backbone.dynamic, "the base takes images of any size where those of the study differ"
    assert item.job.model.tasks[0].size == (16, 16)


def test_the_shared_base_is_the_very_job_of_the_branched_stage(prepared: Path) -> None:
    manifests, config = read_manifests(prepared), study()
    groups = BranchTree.shared(2, 4).groups
    branched = tree_job(config, manifests, groups, SINGLE, name="shared", seed=config.branched.seeds[0])
    assert shared_job(config, manifests, SINGLE).key == branched.key


def test_baselines_wait_for_taps_only_where_they_must(prepared: Path) -> None:
    config = study(
        lrs=[0.1, 0.01],
        baselines=["fine_tuning", "manual_freezing", "lora"],
        baseline_settings={"lora": {"rank": 2}},
    )
    manifests = read_manifests(prepared)
    base = base_of(config, manifests, "base-key")
    first = baseline_jobs(config, manifests, base)
    assert {(item.method, item.task) for item in first} == {
        (method, task) for method in ("fine_tuning", "lora") for task in ("scene", "depth")
    }
    assert len({item.job.key for item in first}) == len(first) == 8
    assert {dict(item.job.model.settings).get("rank") for item in first if item.method == "lora"} == {2}
    later = matched_jobs(config, manifests, base, {"scene": 100, "depth": 2000})
    assert {(item.task, dict(item.job.model.settings)["weights"]) for item in later} == {
        ("scene", 100),
        ("depth", 2000),
    }
    assert matched_jobs(study(), manifests, base, {}) == []


def test_the_better_half_of_the_learning_rates_goes_on(prepared: Path) -> None:
    found = sweep(study(lams=[0.0, 1.0], lrs=[0.1, 0.03, 0.01]), prepared)
    scores = {item.job.name: {0.1: 0.5, 0.03: 0.7}[item.lr] for item in found if item.lr != 0.01}  # 0.01 diverged
    once = better_half(found, scores)
    assert [(item.task, item.lam, item.lr) for item in once] == [
        (task, lam, lr) for task in ("scene", "depth") for lam in (0.0, 1.0) for lr in (0.1, 0.03)
    ]
    twice = better_half(once, scores)
    assert {item.lr for item in twice} == {0.03}
    assert better_half(twice, {}) == twice, "one is always left"


def gates(job: TrainJob, folder: Path) -> dict[str, float]:
    state = kept_weights(JobFolder(str(folder), job.key))
    assert state is not None
    network = build(job)
    assert isinstance(network, TapsModel)
    network.load_state_dict(state)
    return network.gates()


def trained_base(prepared: Path, folder: Path, manifests: Mapping[str, DatasetManifest]) -> TrainJob:
    base = make_job(manifests, ("scene",), epochs=1)
    list(train(base, site(prepared, folder)))
    return base


@pytest.mark.parametrize("warmup", [0, 1, 2])
def test_the_penalty_shuts_the_gates_once_its_warm_up_is_over(prepared: Path, tmp_path: Path, warmup: int) -> None:
    """Every step costs a score lr * λ / L: here 0.02, with momentum 0, unless the loss pays for it."""
    manifests = read_manifests(prepared)
    start = trained_base(prepared, tmp_path, manifests).key
    config = settings(
        tasks=("scene", "depth"),
        train={"momentum": 0.0, "clip": 0.0, "select": "last", "schedule": "constant"},
        taps={"lams": [400.0], "lrs": [1e-3], "epochs": 2, "lam_warmup_epochs": warmup, "tasks": ["depth"]},
    )
    (item,) = taps_jobs(config, manifests, base_of(config, manifests, start), SINGLE)
    list(train(item.job, site(prepared, tmp_path)))
    scores = gates(item.job, tmp_path)
    closed = [score < 0.1 for score in scores.values()]
    assert all(closed) if warmup < 2 else not any(closed)


def test_a_task_is_learned_beside_the_base_and_its_bundle_tells_what_it_took(prepared: Path, tmp_path: Path) -> None:
    manifests = read_manifests(prepared)
    base = trained_base(prepared, tmp_path, manifests)
    config = settings(tasks=("scene", "depth"), taps={"lams": [0.0], "lrs": [1e-2], "epochs": 1, "tasks": ["depth"]})
    (item,) = taps_jobs(config, manifests, base_of(config, manifests, base.key), SINGLE)
    at = site(prepared, tmp_path)
    list(train(item.job, at))
    result = conclude(item.job, at)
    before, after = (kept_weights(JobFolder(str(tmp_path), job.key)) for job in (base, item.job))
    assert before is not None
    assert after is not None
    for name, tensor in before.items():
        if name.startswith("blocks."):
            location, path = name.removeprefix("blocks.").split(".0.", 1)
            assert torch.equal(after[f"base.{location}.{path}"], tensor), name
    backbone = sum(parameter.numel() for parameter in TapsModel(item.job.model).base.parameters())
    plain = sum(parameter.numel() for parameter in TapsModel(item.job.model).merged().parameters())
    assert result["params"] == backbone + plain  # every layer is open: the base, and a whole network beside it


def test_scores_have_their_own_learning_rate_and_deltas_no_decay_to_zero(prepared: Path) -> None:
    (item, _) = sweep(study(lams=[1.0], score_lr=3.0, weight_decay=0.1), prepared)
    network = build(item.job)
    groups = build_optimiser(network, item.job.train).param_groups
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    seen: dict[str, Tensor] = {}
    for group in groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            seen[name] = parameter
            assert group["lr_scale"] == (3.0 if name.endswith(".scores") else 1.0), name
            decays = group["weight_decay"] > 0
            assert decays == (parameter.ndim > 1 and ".weights." not in name), name
    assert seen.keys() == {name for name, parameter in network.named_parameters() if parameter.requires_grad}
