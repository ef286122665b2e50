"""The comparison of strategies: compute that is equal, sizes within budgets, differences told from noise."""

from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from benchmarks.compared.compute import TOLERANCE, check_equal, epochs_for
from benchmarks.compared.moe import experts_within
from benchmarks.compared.seed import compared
from benchmarks.compared.study import Study, own_names, routed
from benchmarks.compared.tables import markdown, ranking, rsa_and_gain, spread, summary
from benchmarks.compared.taps import within
from benchmarks.compared.trees import opposite_of
from benchmarks.comparison import prepare
from models.branch_tree import BranchTree
from models.task_cost import TaskCost
from models.tree_search import enumerate_trees
from pipeline.artifacts import read_manifests
from pipeline.config import load
from pipeline.machine import Machine
from pipeline.moe_jobs import joint_tasks, moe_spec
from pipeline.plan_costs import network_params, unit_costs
from pipeline.preparing import declare, open_source, prepare_dataset
from pipeline.presets import preset_path
from tests.pipeline.cases import DECODING

pytestmark = pytest.mark.filterwarnings(DECODING)
SEEDS = range(4)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Forty scenes, two tasks, one budget."""
    torch.set_num_threads(1)
    base, config = tmp_path_factory.mktemp("comparison"), load(preset_path("compare_scenes"))
    data = config.datasets["scenes"].model_copy(update={"images": 40, "val": 0.2})
    config = config.model_copy(
        update={
            "datasets": {"scenes": data},
            "tasks": {name: config.tasks[name] for name in ("segmentation", "depth")},
            "train": config.train.model_copy(update={"epochs": 4, "batch": 4}),
            "trees": config.trees.model_copy(update={"budgets": ["1.7x"]}),
            "taps": config.taps.model_copy(update={"lams": [0.0, 50.0], "score": 0.101}),  # closes in ten steps
        }
    )
    machine = Machine(storage=str(base / "runs"), threads=1, prepare_workers=1)
    prepare(config, machine, base)
    return Study(config=config, machine=machine, prepared=base / "prepare", manifests=read_manifests(base / "prepare"))


@pytest.mark.parametrize("seed", SEEDS)
def test_epochs_are_those_whose_cost_lies_nearest(seed: int) -> None:
    chance = np.random.default_rng(seed)
    once, each, target = chance.uniform(0, 3), chance.uniform(0.5, 4), chance.uniform(1, 60)
    nearest = min(range(1, 200), key=lambda epochs: abs(once + each * epochs - target))
    assert epochs_for(target, lambda epochs: once + each * epochs) == nearest


def test_compute_that_is_not_equal_is_refused_by_name() -> None:
    check_equal(10.0, {"tree": 10.9, "TAPS": 9.1})
    with pytest.raises(ValueError, match=r"TAPS 0\.80x"):
        check_equal(10.0, {"tree": 10.0, "TAPS": 8.0})


@pytest.mark.parametrize("seed", SEEDS)
def test_the_opposite_has_the_same_size_and_the_highest_cost(seed: int) -> None:
    affinities = torch.rand(3, 3, 3, generator=torch.Generator().manual_seed(seed))
    affinities = (affinities + affinities.mT) / 2
    for tree in enumerate_trees(3, 3):
        other = opposite_of(tree, affinities)
        alike = [one.cost(affinities) for one in enumerate_trees(3, 3) if one.branches == tree.branches]
        assert other.branches == tree.branches
        assert other.cost(affinities) == max(alike)
        assert (other == tree) == (len(alike) == 1 or tree.cost(affinities) == max(alike) > sorted(alike)[-2])


def test_one_set_named_once_a_task_is_the_same_images_again(study: Study, tmp_path: Path) -> None:
    """What the comparison links is what `prepare` would make of a study that names its set once for each task."""
    config = routed(study.config)
    for name in config.datasets:
        source = open_source(name, config, study.machine)
        made = prepare_dataset(declare(name, config, source), source, config, study.machine, tmp_path, lambda _: None)
        assert made == study.manifests[name]
    assert list(own_names(study.config).values()) == list(config.datasets)


@pytest.mark.parametrize("times", [1.2, 1.7, 3.0])
def test_experts_fill_a_budget_and_no_more(study: Study, times: float) -> None:
    blocks, heads = unit_costs(study.shared)["params"]
    limit = times * (sum(blocks) + sum(heads))

    def params(experts: int) -> int:
        config = routed(study.config)
        config = config.model_copy(update={"moe": config.moe.model_copy(update={"experts": experts})})
        return network_params(moe_spec(config, study.manifests, joint_tasks(config)))

    number = experts_within(study, limit)
    assert params(number) <= limit < params(number + 1)


def test_too_small_a_budget_for_experts_is_refused(study: Study) -> None:
    with pytest.raises(ValueError, match="top_k 4"):
        experts_within(study, 1000)


@pytest.mark.parametrize("seed", SEEDS)
def test_taps_stays_within_a_budget_and_takes_the_best_that_does(seed: int) -> None:
    chance, rows = np.random.default_rng(seed), []
    for task in "abc":
        head = int(chance.integers(5, 30))
        for active in (0, 100, 400, 900):
            cost = TaskCost(active=active, norm=20, head=head, backbone=1000, base=1050, bytes=0)
            rows.append(
                {"task": task, "method": "taps", "val": chance.random(), "params_share": cost.share, "cost": cost}
            )
    single = {task: {"higher_is_better": True} for task in "abc"}
    for limit in (1250, 1600, 2600, 9000):
        picked = within(rows, single, limit)
        assert 1050 + sum(row["cost"].own for row in picked) <= limit
    assert [row["val"] for row in picked] == [max(row["val"] for row in rows if row["task"] == task) for task in "abc"]


def test_a_lead_smaller_than_the_deviation_is_noise() -> None:
    def network(strategy: str, values: list[float]) -> dict[str, Any]:
        return {"strategy": strategy, "budget": "2x", "delta_mtl": spread(values)}

    rows = {"a": network("tree", [4, 6, 5]), "b": network("TAPS", [4, 7, 3]), "c": network("experts", [-3, -4, -2])}
    rows["all shared"] = network("all shared", [-9, -9, -8]) | {"budget": ""}  # keeps to every budget
    first, second, third, last = ranking(rows, "2x")
    assert (first["strategy"], first["behind"], first["clear"]) == ("tree", 0, False)
    assert (second["strategy"], second["clear"]) == ("TAPS", False)
    assert second["noise"] == pytest.approx(sqrt(np.var([4, 6, 5], ddof=1) + np.var([4, 7, 3], ddof=1)))
    assert (third["strategy"], third["clear"], third["behind"]) == ("experts", True, 8)
    assert last["strategy"] == "all shared"


def test_cost_and_gain_are_compared_over_trees_and_seeds() -> None:
    chance = np.random.default_rng(0)
    names = [("all shared", ""), ("tree", "2x"), ("opposite tree", "2x"), ("TAPS", "2x")]
    seeds = [
        {
            "networks": [
                {"strategy": strategy, "budget": budget, "cost": chance.random(), "delta_mtl": chance.normal()}
                for strategy, budget in names
            ]
        }
        for _ in range(3)
    ]
    trees = [row for seed in seeds for row in seed["networks"][:3]]
    found = rsa_and_gain(seeds)
    rho, p_value = spearmanr([row["cost"] for row in trees], [row["delta_mtl"] for row in trees])
    assert (found["trees"], found["spearman"], found["p_value"]) == (9, pytest.approx(rho), pytest.approx(p_value))
    gaps = [seed["networks"][1]["delta_mtl"] - seed["networks"][2]["delta_mtl"] for seed in seeds]
    assert (found["pairs"], found["wins"]) == (3, sum(gap > 0 for gap in gaps))
    assert found["gap"]["std"] == pytest.approx(np.std(gaps, ddof=1))


def test_a_seed_trains_every_strategy_at_one_compute_within_the_budget(study: Study) -> None:
    found = compared(study, 1)
    rows = {row["name"]: row for row in found["networks"]}
    assert [*rows] == ["single-task", "all shared", "tree 1.7x", "fine-tuned", "TAPS 1.7x", "experts 1.7x"]
    target, size = rows["single-task"]["flops"], 1.7 * rows["all shared"]["params"]
    for name, row in rows.items():
        assert row["flops"] == pytest.approx(target, rel=TOLERANCE), name
        assert row["params"] <= size or not row["budget"], name
        assert row["delta_mtl"] == pytest.approx(np.mean(list(row["delta"].values()))), name
    assert not any(rows["single-task"]["delta"].values())
    assert rows["tree 1.7x"]["further"] > target
    assert BranchTree(rows["tree 1.7x"]["groups"]) == opposite_of(
        BranchTree(rows["tree 1.7x"]["groups"]), torch.eye(2).repeat(4, 1, 1)
    )
    text = markdown({"scenes": summary([found])})
    assert all(f"| {name} |" in text for name in rows)
    assert compared(study, 1) == found  # from storage
