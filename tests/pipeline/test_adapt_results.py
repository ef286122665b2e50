"""Runs of adapting -> one line a mode, and what learning did to what was learned before."""

from collections.abc import Mapping
from typing import Any

import pytest

from pipeline.adapt_results import best_runs, continual_line, label_of, mode_lines
from pipeline.strategies import MODES, Mode

SINGLE: dict[str, dict[str, Any]] = {
    "signs": {"metric": "accuracy", "higher_is_better": True},
    "land": {"metric": "accuracy", "higher_is_better": True},
    "depth": {"metric": "rmse", "higher_is_better": False},
}


def row(mode: str, task: str, lr: float, val: float, test: float, **sizes: int) -> dict[str, Any]:
    about = {"name": f"{task}-{mode}-lr{lr:g}", "mode": mode, "task": task, "lr": lr, "val": val, "test": test}
    return {**about, "trained_params": 10, "model_params": 100, "flops": 1000, **sizes}


ROWS = [
    row("router", "signs", 0.1, 0.6, 0.9, trained_params=4),
    row("router", "signs", 0.01, 0.7, 0.5, trained_params=6),
    row("router", "depth", 0.1, 0.6, 0.9, trained_params=4),
    row("router", "depth", 0.01, 0.7, 0.5, trained_params=4),
    row("full", "signs", 0.1, 0.8, 0.8, trained_params=100),
    row("full", "depth", 0.1, 0.8, 0.8, trained_params=100, model_params=300),
]


def lines(rows: list[dict[str, Any]], *modes: str) -> dict[str, dict[str, Any]]:
    found = mode_lines(rows, {mode: f"{mode} in words" for mode in modes}, SINGLE)
    assert [line["mode"] for line in found] == list(modes), "in the order of the labels"
    return {line["mode"]: line for line in found}


def test_validation_picks_the_learning_rate_whichever_way_the_metric_points() -> None:
    found = best_runs(ROWS[:4], SINGLE)
    assert {task: run["lr"] for task, run in found.items()} == {"signs": 0.01, "depth": 0.1}


@pytest.mark.parametrize("task", ["signs", "depth"])
def test_of_equals_the_first_and_an_undefined_one_last(task: str) -> None:
    nan = float("nan")
    rows = [row("router", task, lr, val, 0.0) for lr, val in ((0.1, nan), (0.2, 0.5), (0.3, 0.5), (0.4, nan))]
    assert best_runs(rows, SINGLE)[task]["lr"] == 0.2
    assert best_runs(rows[:1], SINGLE)[task]["lr"] == 0.1
    assert best_runs([], SINGLE) == {}


def test_a_mode_is_one_line_over_its_tasks() -> None:
    found = lines(ROWS, "full", "router")["router"]
    assert found["label"] == "router in words"
    assert found["runs"] == {"signs": "signs-router-lr0.01", "depth": "depth-router-lr0.1"}
    assert (found["val"], found["test"]) == ({"signs": 0.7, "depth": 0.6}, {"signs": 0.5, "depth": 0.9})
    assert found["mean"] is None, "of an accuracy and an error there is no mean"
    assert found["trained_params"] == 5
    assert (found["trained_share"], found["params_share"], found["flops_share"]) == (0.05, 0.5, 1.0)


def test_the_mean_is_that_of_one_metric() -> None:
    rows = [row("full", task, 0.1, val, val) for task, val in (("signs", 0.5), ("land", 0.7))]
    assert lines(rows, "full")["full"]["mean"] == pytest.approx(0.6)


def test_full_fine_tuning_is_all_of_itself_and_without_it_there_are_no_shares() -> None:
    shares = ("trained_share", "params_share", "flops_share")
    assert [lines(ROWS, "full", "router")["full"][share] for share in shares] == [1.0, 1.0, 1.0]
    assert [lines(ROWS[:4], "router")["router"][share] for share in shares] == [None] * 3
    assert lines(ROWS) == {}


def test_every_mode_of_the_paper_is_named_otherwise() -> None:
    labels = {label_of(name, mode) for name, mode in MODES.items()}
    assert len(labels) == len(MODES)


@pytest.mark.parametrize(
    ("name", "mode", "label"),
    [
        ("full", MODES["full"], "full fine-tuning"),
        ("router", MODES["router"], "router only"),
        ("adapter", MODES["adapter"], "adapter of 64"),
        ("router_1_least", MODES["router_1_least"], "router + 1 expert (least used)"),
        ("prune_threshold", MODES["prune_threshold"], "all, experts below 5% of use pruned"),
        ("hybrid_b", MODES["hybrid_b"], "router + 2 experts, 67% of experts pruned, top 3"),
        ("mine", Mode(adapter=8, experts=2, prune=0.5), "router + 2 experts, 50% of experts pruned, adapter of 8"),
        ("mine", Mode(learns="all", adapter=8, top_k=1), "all, top 1, adapter of 8"),
    ],
)
def test_a_label_says_all_that_a_mode_does(name: str, mode: Mode, label: str) -> None:
    assert label_of(name, mode) == label


def test_what_was_learned_is_followed_from_step_to_step() -> None:
    values: list[Mapping[str, float]] = [
        {"old": 0.9},
        {"old": 0.8, "signs": 0.7},
        {"old": 0.5, "signs": 0.6, "depth": 1.5},
    ]
    runs = [{"trained_params": 7, "job": "first"}, {"trained_params": 8, "job": "second"}]
    assert continual_line("lwf", "LwF", runs, values, [100, 104, 109]) == {
        "method": "lwf",
        "label": "LwF",
        "new_params": [4, 5],
        "trained_params": [7, 8],
        "matrix": [[0.9, None, None], [0.8, 0.7, None], [0.5, 0.6, 1.5]],
        "jobs": ["first", "second"],
        "params": [100, 104, 109],
    }
