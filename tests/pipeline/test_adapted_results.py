"""Rows of runs -> what is chosen, one line a method, networks for the whole study."""

from typing import Any

import pytest

from models.accounting import s_score
from pipeline.adapted_results import best, chosen, methods, networks

SINGLE: dict[str, dict[str, Any]] = {
    name: {"metric": "accuracy", "higher_is_better": True, "val": 0.5, "test": 0.4, "params": 1100, "flops": 10}
    for name in ("base", "a", "b")
}
BASE = {"kind": "task", "name": "base", "params": 1000}


def row(task: str, method: str, lam: float | None, lr: float, val: float, test: float, share: float) -> dict[str, Any]:
    name = f"{task}-{method}-{lam}-{lr}"
    return {
        "name": name,
        "task": task,
        "method": method,
        "lam": lam,
        "lr": lr,
        "val": val,
        "test": test,
        "params_share": share,
        "own_params": round(1000 * share),
        "bytes": round(4000 * share),
        "flops": 10,
        "seconds": 2.0,
        "job": f"key {name}",
        "epoch": 3,
    }


ROWS = [
    row("a", "taps", 0.0, 0.1, 0.90, 0.80, 1.0),
    row("a", "taps", 0.0, 0.01, 0.80, 0.99, 0.9),
    row("a", "taps", 1.0, 0.1, 0.70, 0.70, 0.2),
    row("b", "taps", 0.0, 0.1, 0.60, 0.60, 1.0),
    row("b", "taps", 1.0, 0.1, 0.60, 0.50, 0.1),
    row("a", "fine_tuning", None, 0.1, 0.90, 0.75, 1.0),
    row("b", "fine_tuning", None, 0.1, 0.90, 0.50, 1.0),
]


def test_the_best_is_that_on_validation_and_of_equals_the_one_that_adds_less() -> None:
    taps = [item for item in ROWS if item["method"] == "taps"]
    assert best([item for item in taps if item["task"] == "a"], True)["lr"] == 0.1
    assert best([item for item in taps if item["task"] == "b"], True)["lam"] == 1.0
    assert best([item for item in taps if item["task"] == "a"], False)["val"] == 0.7


@pytest.mark.parametrize(
    ("budget", "lam", "lr"), [(None, 0.0, 0.1), (0.95, 0.0, 0.01), (0.5, 1.0, 0.1), (0.1, 1.0, 0.1)]
)
def test_a_budget_bounds_what_a_task_may_add(budget: float | None, lam: float, lr: float) -> None:
    """Where no run stays within it, the one that adds least."""
    picked = chosen(ROWS, SINGLE, budget)["a"]
    assert (picked["lam"], picked["lr"]) == (lam, lr)


def test_tasks_that_were_trained_jointly_stay_together() -> None:
    """Each job is the best of one task; the second is better by more."""
    values = {"one": {"a": 0.60, "b": 0.50}, "two": {"a": 0.55, "b": 0.65}}
    rows = [
        row(task, "taps", 1.0, 0.1, val, val, 0.2) | {"job": job, "name": f"{task}-{job}"}
        for job, part in values.items()
        for task, val in part.items()
    ]
    assert {task: item["job"] for task, item in chosen(rows, SINGLE, None).items()} == {"a": "two", "b": "two"}
    assert {line["label"]: line["runs"] for line in methods(rows, chosen(rows, SINGLE, None), SINGLE, {})} == {
        "TAPS λ=1": {"a": "a-two", "b": "b-two"},
        "TAPS, λ chosen": {"a": "a-two", "b": "b-two"},
    }


def lines(reference: dict[str, float] | None = None) -> dict[str, dict[str, Any]]:
    return {line["label"]: line for line in methods(ROWS, chosen(ROWS, SINGLE, None), SINGLE, reference or {})}


def test_one_line_a_method_with_each_task_s_best_learning_rate() -> None:
    found = lines()
    assert list(found) == ["TAPS λ=0", "TAPS λ=1", "fine tuning", "TAPS, λ chosen"]
    assert found["TAPS λ=0"]["test"] == {"a": 0.8, "b": 0.6}
    assert found["TAPS λ=0"]["multiple"] == 1 + 1.0 + 1.0
    assert found["TAPS λ=1"]["multiple"] == pytest.approx(1.3)
    assert found["TAPS λ=1"]["bytes"] == 800 + 400
    assert found["TAPS, λ chosen"]["test"] == {"a": 0.8, "b": 0.5}
    assert found["TAPS, λ chosen"]["mean"] == pytest.approx(0.65)


def test_the_score_takes_fine_tuning_for_its_reference_or_what_is_given() -> None:
    found = lines()
    assert found["fine tuning"]["s_score"] == pytest.approx(500.0)  # 250 a task, by definition
    errors = {"a": 0.2, "b": 0.4}
    assert found["TAPS λ=0"]["s_score"] == pytest.approx(s_score(errors, {"a": 0.25, "b": 0.5}))
    given = {"a": 0.1, "b": 0.3}
    assert lines(given)["TAPS λ=0"]["s_score"] == pytest.approx(s_score(errors, given))


def test_without_a_reference_for_every_task_there_is_no_score() -> None:
    rows = [item for item in ROWS if item["method"] == "taps"]
    assert {line["s_score"] for line in methods(rows, chosen(rows, SINGLE, None), SINGLE, {"a": 0.1})} == {None}


def test_unlike_metrics_have_no_mean() -> None:
    single = SINGLE | {"b": SINGLE["b"] | {"metric": "rmse", "higher_is_better": False}}
    found = methods(ROWS, chosen(ROWS, single, None), single, {})
    assert all(line["mean"] is None and line["s_score"] is None for line in found)


def test_networks_are_the_lines_of_taps_with_the_base_s_own_task() -> None:
    found = {item["name"]: item for item in networks(list(lines().values()), ROWS, SINGLE, BASE)}
    assert list(found) == ["taps-lam0", "taps-lam1", "taps-chosen"]
    one = found["taps-lam1"]
    assert one["test"] == {"base": 0.4, "a": 0.7, "b": 0.5}
    assert one["params"] == 1000 + 100 + 200 + 100  # base, its head, what a and b own
    assert one["flops"] == 30
    assert one["delta_mtl"] == pytest.approx(100 * (0 + 0.3 / 0.4 + 0.1 / 0.4) / 3)
    assert one["delta_mtl_val"] == pytest.approx(100 * (0 + 0.2 / 0.5 + 0.1 / 0.5) / 3)


def test_a_study_with_a_task_that_was_not_adapted_gives_no_network() -> None:
    more = SINGLE | {"c": SINGLE["a"]}
    assert networks(list(lines().values()), ROWS, more, BASE) == []
    assert networks(list(lines().values()), ROWS, SINGLE, BASE | {"kind": "shared", "name": "shared"}) == []
