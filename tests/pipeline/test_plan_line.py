"""What `make repro` says before the first network, against jobs that are known to be trained."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from models.tree_search import enumerate_trees
from pipeline import plan_line as module
from pipeline.artifacts import DatasetManifest, read_manifests, write_json
from pipeline.config import Config
from pipeline.jobs import TrainJob
from pipeline.machine import Machine
from pipeline.plan_costs import shared_spec, unit_costs
from pipeline.plan_jobs import Found, planned_jobs, single_jobs
from pipeline.plan_line import plan_line
from pipeline.storage import JobFolder
from tests.pipeline.cases import settings

TASKS = ("scene", "depth", "segmentation")
CONFIG = settings(tasks=TASKS, taps={"lams": [0.1], "lrs": [0.01]}, trees={"budgets": ["1.5x", "3x"]})


@pytest.fixture
def manifests(prepared: Path) -> Mapping[str, DatasetManifest]:
    return read_manifests(prepared)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(module, "ARTIFACTS", tmp_path / "artifacts")
    (tmp_path / "artifacts/trees").mkdir(parents=True)
    return Machine(storage=str(tmp_path / "runs"), threads=1, gpu=False)


def trained(machine: Machine, job: TrainJob) -> str:
    """A job as one that is done; gives its key."""
    JobFolder(machine.storage, job.key).write_result({"val": dict.fromkeys(job.model.task_names, 0.25)})
    return job.key


def pretrained(config: Config, manifests: Mapping[str, DatasetManifest], machine: Machine) -> Found:
    jobs = [item.job for item in single_jobs(config, manifests)]
    return Found(single={job.name: {"val": 0.25, "job": trained(machine, job)} for job in jobs})


def test_trees_are_counted_and_those_within_each_budget(
    manifests: Mapping[str, DatasetManifest], machine: Machine
) -> None:
    costs = unit_costs(shared_spec(CONFIG, manifests))["params"]
    sizes = [tree.budget(*costs) for tree in enumerate_trees(3, 4)]
    small, large = (sum(size <= times * min(sizes) for size in sizes) for times in (1.5, 3))
    first = plan_line(CONFIG, manifests, machine).splitlines()[0]
    assert first == f"3 tasks, 4 locations: {len(sizes)} trees, {small} within 1.5x, {large} within 3x"


def test_without_a_network_all_are_to_be_trained(manifests: Mapping[str, DatasetManifest], machine: Machine) -> None:
    """Three single ones, two ends and two budgets, and TAPS for each task."""
    _, networks, work = plan_line(CONFIG, manifests, machine).splitlines()
    assert networks == "10 networks, none of them trained yet"
    assert "FLOP, about " in work
    assert work.endswith("B of disk")


def test_what_is_trained_is_known_by_the_stages_own_keys(
    manifests: Mapping[str, DatasetManifest], machine: Machine
) -> None:
    found = pretrained(CONFIG, manifests, machine)
    assert "10 networks, 3 of them trained before\nthe others: " in plan_line(CONFIG, manifests, machine)
    costs = unit_costs(shared_spec(CONFIG, manifests))
    jobs = planned_jobs(CONFIG, manifests, costs, found)
    for item in jobs:
        if not item.between:
            trained(machine, item.job)
    assert "10 networks, 8 of them trained before" in plan_line(CONFIG, manifests, machine), "all but two trees"
    groups = ((0, 0, 1),) * 4
    trees = [{"name": name, "groups": groups} for name in ("budget-1.5x", "budget-3x")]
    write_json(module.ARTIFACTS / "trees/chosen.json", {"tasks": list(TASKS), "trees": trees})
    assert "9 networks, 8 of them trained before" in plan_line(CONFIG, manifests, machine), "one tree for both budgets"
    chosen = Found(single=found.single, trees={tree["name"]: groups for tree in trees})
    for item in planned_jobs(CONFIG, manifests, costs, chosen):
        trained(machine, item.job)
    assert plan_line(CONFIG, manifests, machine).endswith("\n9 networks, all trained before")


def test_trees_of_other_tasks_are_not_taken_for_this_study_s(
    manifests: Mapping[str, DatasetManifest], machine: Machine
) -> None:
    pretrained(CONFIG, manifests, machine)
    trees = [{"name": "budget-1.5x", "groups": [[0, 1]] * 4}]
    write_json(module.ARTIFACTS / "trees/chosen.json", {"tasks": ["scene", "depth"], "trees": trees})
    assert "10 networks, 3 of them trained" in plan_line(CONFIG, manifests, machine)


def test_a_cluster_s_speed_is_not_guessed_from_this_machine(
    manifests: Mapping[str, DatasetManifest], machine: Machine
) -> None:
    assert "FLOP, at most " in plan_line(CONFIG, manifests, machine.model_copy(update={"jobs": 4})).splitlines()[2]


def test_it_draws_nothing_from_the_random_numbers_of_training(
    manifests: Mapping[str, DatasetManifest], machine: Machine
) -> None:
    before = torch.random.get_rng_state()
    plan_line(CONFIG, manifests, machine)
    assert torch.equal(before, torch.random.get_rng_state())
