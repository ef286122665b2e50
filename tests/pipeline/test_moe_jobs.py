"""What the moe stage trains: the network with experts for every λ, and what it is compared with."""

from typing import Any

import pytest

from models.sharing.moe import MoeModel
from pipeline.config import Config
from pipeline.jobs import TrainJob, model_spec, task_specs
from pipeline.moe_jobs import Trial, finetune_trials, joint_tasks, moe_spec, moe_trials, with_settings
from tests.pipeline.expert_study import LAYERS, SINGLE, manifests, study

BASELINES = ["dense", "finetune", "scratch"]
EXPERTS_ONLY = {"experts", "top_k", "hidden", "expert_bias", "router_width", "placement", "momentum", "upcycled"}


def trials(config: Config) -> list[Trial]:
    return [*moe_trials(config, manifests(), SINGLE), *finetune_trials(config, manifests(), SINGLE)]


def jobs(**moe: Any) -> dict[str, TrainJob]:
    return {trial.job.name: trial.job for trial in trials(study(moe=moe))}


def test_all_but_the_tasks_to_adapt_to_are_trained_jointly() -> None:
    assert joint_tasks(study()) == ["kind", "field", "newest"]
    assert joint_tasks(study(adapt={"tasks": ["kind", "fresh"]})) == ["field", "newest"]
    assert joint_tasks(study(adapt={"tasks": []})) == ["kind", "field", "fresh", "newest"]
    assert joint_tasks(study(moe={"tasks": ["field"]})) == ["field"]


def test_a_network_for_every_penalty_and_its_baselines() -> None:
    found = trials(study(moe={"lams": [0.0, 0.1], "baselines": BASELINES, "pretrained_on": "kind"}))
    assert [(trial.job.name, trial.method, trial.lam) for trial in found] == [
        ("moe-lam0", "moe", 0.0),
        ("moe-lam0.1", "moe", 0.1),
        ("dense", "dense", None),
        ("field-finetune", "finetune", None),
        ("newest-finetune", "finetune", None),
    ]
    assert len({trial.job.key for trial in found}) == len(found)
    assert [trial.job.lam for trial in found] == [0.0, 0.1, 0.0, 0.0, 0.0]


def test_none_of_what_nobody_asked_for() -> None:
    assert trials(study(moe={"lams": [], "baselines": ["finetune"]})) == []
    assert [trial.method for trial in trials(study(moe={"baselines": ["scratch"], "pretrained_on": "kind"}))] == ["moe"]


def test_every_data_set_is_read_in_its_batches_and_drawn_by_its_weight() -> None:
    for name in ("moe-lam0.1", "dense"):
        job = jobs()[name]
        assert [(data, weight, batch) for data, _, weight, batch in job.datasets] == [
            ("square", 3.0, 8),
            ("high", 1.0, 4),
            ("other", 1.0, 6),
        ]
        assert dict(job.reference) == {"kind": 0.5, "field": 0.5, "newest": 0.5}
        assert job.model.backbone.dynamic


@pytest.mark.parametrize(("moe", "draws"), [({}, 1), ({"ranks": 3}, 1), ({"sampling": "per_rank", "ranks": 3}, 3)])
def test_draws_on_every_rank_are_so_many_a_step(moe: dict[str, Any], draws: int) -> None:
    found = jobs(**moe, baselines=BASELINES, pretrained_on="kind")
    assert {name: job.draws for name, job in found.items()} == {
        "moe-lam0.1": draws,
        "dense": draws,
        "field-finetune": 1,
        "newest-finetune": 1,
    }


def test_epochs_are_those_of_training_where_there_are_no_others() -> None:
    asked = jobs(epochs=7, baselines=BASELINES, pretrained_on="kind")
    assert {name: job.train.epochs for name, job in asked.items()} == {
        "moe-lam0.1": 7,
        "dense": 7,
        "field-finetune": 1,
        "newest-finetune": 1,
    }
    assert jobs()["moe-lam0.1"].train.epochs == 1


def test_the_dense_network_is_the_same_without_experts() -> None:
    dense, sparse = (MoeModel(jobs()[name].model) for name in ("dense", "moe-lam0.1"))
    assert not dense.layers
    assert list(sparse.layers) == LAYERS
    here, there = ({name for name, _ in network.named_parameters()} for network in (dense, sparse))
    assert {name for name in here - there if ".mlp." not in name} == set()
    assert {name for name in there - here if ".mlp." not in name} == set()
    assert dense.spec.mean == sparse.spec.mean


def test_fine_tuning_starts_from_one_task_s_network_and_its_normalisation() -> None:
    config = study(moe={"baselines": BASELINES, "pretrained_on": "kind"})
    known, seen = {task.name: task for task in task_specs(config, manifests())}, manifests()
    source = model_spec(config, seen, [known["kind"]], [[0]] * 4)
    for trial in finetune_trials(config, seen, SINGLE):
        assert trial.job.start == (("dense", "key-kind"),)
        assert (trial.job.model.mean, trial.job.model.std) == (source.mean, source.std)
        assert len(trial.job.trained) == 1
    # Named, though it is not among the tasks that are trained jointly.
    other = study(moe={"baselines": ["finetune"], "pretrained_on": "kind", "tasks": ["field", "newest"]})
    assert [trial.job.trained for trial in finetune_trials(other, seen, SINGLE)] == [("field",), ("newest",)]


def test_images_are_normalised_as_the_joint_tasks_are_whatever_the_tasks() -> None:
    config, seen = study(), manifests()
    spec = moe_spec(config, seen, ["fresh"])
    assert spec.mean == moe_spec(config, seen, joint_tasks(config)).mean
    assert spec.mean[0] == pytest.approx((0.0 + 0.1 + 0.3) / 3)
    assert spec.tasks[0].size == (32, 40)


@pytest.mark.parametrize(
    "change",
    [
        {"experts": 5},
        {"top_k": 1},
        {"hidden": 8},
        {"expert_bias": False},
        {"router_width": 2},
        {"placement": "text"},
        {"momentum": 0.5},
        {"upcycled": True},
        {"epochs": 2},
        {"sampling": "per_rank", "ranks": 2},
        {"tasks": ["kind", "field"]},
    ],
    ids=str,
)
def test_settings_reach_the_networks_that_they_change_and_no_others(change: dict[str, Any]) -> None:
    others = {"baselines": BASELINES, "pretrained_on": "kind"}
    before, after = jobs(**others), jobs(**others | change)
    changed = {name for name in before if name not in after or before[name].key != after[name].key}
    joint = {"moe-lam0.1"} if change.keys() <= EXPERTS_ONLY else {"moe-lam0.1", "dense"}
    assert changed - {"newest-finetune"} == joint
    assert before["field-finetune"].key == after["field-finetune"].key or "tasks" in change


@pytest.mark.parametrize(
    "unused", [{"ranks": 4}, {"baselines": ["dense", "scratch"]}, {"lams": [0.1, 0.5]}, {"pretrained_on": "field"}]
)
def test_what_changes_no_result_changes_no_key(unused: dict[str, Any]) -> None:
    before, after = jobs(baselines=["dense"]), jobs(**{"baselines": ["dense"]} | unused)
    assert {job.key for job in before.values()} <= {job.key for job in after.values()}


def test_a_setting_is_changed_in_place() -> None:
    spec = jobs()["moe-lam0.1"].model
    changed = with_settings(spec, top_k=1, remembered=("square",))
    assert dict(changed.settings) == dict(spec.settings) | {"top_k": 1, "remembered": ("square",)}
    assert list(changed.settings) == sorted(changed.settings)
