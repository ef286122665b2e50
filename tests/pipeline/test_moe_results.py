"""Results of jobs -> the lines of the moe stage."""

from typing import Any

import pytest

from pipeline.moe_results import chosen_line, method_line, scratch_results, study_networks
from tests.pipeline.expert_study import SINGLE

TASKS = ["kind", "field"]


def result(key: str, **values: float) -> dict[str, Any]:
    """What a job left; its network is all backbone but for 10 parameters."""
    sizes = {"seconds": 5.0, "params": 110, "flops": 7, "backbone_params": 100, "epoch": 2, "key": key}
    flops = {task: {"kind": 4, "field": 8}.get(task, 1000) for task in values}
    return {**sizes, "task_flops": flops, "val": values, "test": {task: value - 0.1 for task, value in values.items()}}


def line(name: str, method: str, lam: float | None, *results: dict[str, Any]) -> dict[str, Any]:
    return method_line(name, method, lam, 3, results, TASKS, SINGLE)


def test_a_gain_counts_whichever_way_the_metric_points() -> None:
    """The accuracy's single-task network is at 0.5 and 0.4, and so is the error's."""
    found = line("moe-lam0.1", "moe", 0.1, result("k", kind=0.6, field=0.6))
    assert found["delta_mtl_val"] == pytest.approx(100 * (0.2 - 0.2) / 2)
    better = line("moe-lam0.1", "moe", 0.1, result("k", kind=0.6, field=0.4))
    assert better["delta_mtl_val"] == pytest.approx(100 * (0.2 + 0.2) / 2)
    assert better["delta_mtl"] == pytest.approx(100 * ((0.5 - 0.4) / 0.4 + (0.4 - 0.3) / 0.4) / 2)


def test_several_jobs_are_one_line() -> None:
    found = line("finetune", "finetune", None, result("a", field=0.3), result("b", kind=0.7))
    assert list(found["test"]) == list(found["val"]) == TASKS, "in the order of the tasks"
    assert found["jobs"] == ["a", "b"]
    assert found["epochs"] == [2, 2]
    assert [found[what] for what in ("seconds", "params", "all_flops", "backbone_params")] == [10.0, 220, 14, 200]
    assert found["flops"] == 6, "one task on one image, the mean over tasks"
    assert (found["label"], found["seed"], found["lam"]) == ("pre-trained, fine-tuned", 3, None)
    assert [found[what] for what in ("picks", "probs", "mi")] == [None] * 3


def test_tasks_that_are_not_asked_for_do_not_count() -> None:
    found = line("moe-lam0", "moe", 0.0, result("k", kind=0.6, field=0.5, fresh=9.9))
    assert found["test"].keys() == set(TASKS)
    assert found["delta_mtl_val"] == pytest.approx(10.0)
    assert found["flops"] == 6


def test_from_scratch_nothing_is_gained() -> None:
    rows = [row | {"backbone_params": 900, "task_flops": row["test"]} for row in scratch_results(SINGLE, TASKS)]
    found = method_line("scratch", "scratch", None, 0, rows, TASKS, SINGLE)
    assert found["jobs"] == ["key-kind", "key-field"]
    assert (found["delta_mtl"], found["delta_mtl_val"]) == (0.0, 0.0)
    assert (found["params"], found["all_flops"], found["seconds"]) == (2000, 140, 4.0)
    assert found["val"] == {"kind": 0.5, "field": 0.5}


def test_validation_chooses_among_the_networks_with_experts_alone() -> None:
    lines = [
        {"name": name, "method": method, "delta_mtl_val": val, "delta_mtl": test}
        for name, method, val, test in [
            ("undefined", "moe", float("nan"), 90.0),
            ("second", "moe", 1.0, 50.0),
            ("best", "moe", 2.0, 0.0),
            ("as good", "moe", 2.0, 9.0),
            ("dense", "dense", 7.0, 7.0),
        ]
    ]
    assert chosen_line(lines)["name"] == "best"


def test_only_networks_for_all_tasks_stand_beside_those_of_the_study() -> None:
    lines = [
        line("moe-lam0.1", "moe", 0.1, result("a", kind=0.6, field=0.5)),
        line("dense", "dense", None, result("b", kind=0.6, field=0.5)),
        line("finetune", "finetune", None, result("c", kind=0.6, field=0.5)),
    ]
    here = {task: SINGLE[task] for task in TASKS}
    assert [row["name"] for row in study_networks(lines, here)] == ["moe-lam0.1", "dense"]
    assert [row["keys"] for row in study_networks(lines, here)] == [["a"], ["b"]]
    assert [row["flops"] for row in study_networks(lines, here)] == [7, 7], "all tasks on one image, as for trees"
    assert study_networks(lines, SINGLE) == []
