"""What the taps stage's jobs gave -> its tables: runs, methods over all tasks, networks for the whole study."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from models.accounting import delta_mtl, s_score

Row = Mapping[str, Any]
TAPS = "taps"


def best(rows: Sequence[Row], higher: bool, budget: float | None = None) -> Row:
    """The row that is best on validation, of equals the one that adds less; within a share of parameters if asked.

    Where no row stays within the budget, the one that adds least.
    """
    within = [row for row in rows if budget is None or row["params_share"] <= budget]
    if not within:
        return min(rows, key=lambda row: row["params_share"])
    return min(within, key=lambda row: (-row["val"] if higher else row["val"], row["params_share"]))


def pick(rows: Sequence[Row], single: Mapping[str, Row], budget: float | None = None) -> dict[str, Row]:
    """Each task's best row. Rows of one job stay together: tasks that were trained jointly share one base.

    Of joint jobs the best has the greatest Δ_MTL on validation; its tasks' mean share is what the budget bounds.
    """
    jobs: dict[str, list[Row]] = {}
    for row in rows:
        jobs.setdefault(row["job"], []).append(row)
    if all(len(group) == 1 for group in jobs.values()):
        parts = {task: [row for row in rows if row["task"] == task] for task in _directions(rows, single)}
        return {task: best(part, single[task]["higher_is_better"], budget) for task, part in parts.items()}
    wholes = [
        {
            "val": _delta({row["task"]: row["val"] for row in group}, single, "val"),
            "params_share": mean(row["params_share"] for row in group),
            "job": job,
        }
        for job, group in jobs.items()
    ]
    return {row["task"]: row for row in jobs[best(wholes, True, budget)["job"]]}


def chosen(rows: Sequence[Row], single: Mapping[str, Row], budget: float | None) -> dict[str, Row]:
    """Each task's TAPS run, over λ and learning rates."""
    return pick([row for row in rows if row["method"] == TAPS], single, budget)


def methods(
    rows: Sequence[Row], picked: Mapping[str, Row], single: Mapping[str, Row], reference: Mapping[str, float]
) -> list[dict[str, Any]]:
    """One line a method over all tasks, for TAPS one a λ: of several learning rates each task's best on validation.

    `s_score` compares with twice the `reference` errors, by default those of fine-tuning (Rebuffi et al. 2017).
    """
    directions = _directions(rows, single)
    lines = []
    for method, lam in dict.fromkeys((row["method"], row["lam"]) for row in rows):
        runs = pick([row for row in rows if (row["method"], row["lam"]) == (method, lam)], single)
        label = f"TAPS λ={lam:g}" if method == TAPS else method.replace("_", " ")
        lines.append(_line(method, lam, label, runs))
    lines.append(_line(TAPS, None, "TAPS, λ chosen", picked))
    tuned = next((line["test"] for line in lines if line["method"] == "fine_tuning"), {})
    errors = {task: 1 - value for task, value in tuned.items()} | dict(reference)
    rated = {task: single[task]["metric"] == "accuracy" and errors.get(task, 0) > 0 for task in directions}
    for line in lines:
        same = len({single[task]["metric"] for task in line["test"]}) == 1
        line["mean"] = mean(line["test"].values()) if same else None
        scores = all(rated.values())
        line["s_score"] = s_score({task: 1 - value for task, value in line["test"].items()}, errors) if scores else None
    return lines


def _line(method: str, lam: float | None, label: str, runs: Mapping[str, Row]) -> dict[str, Any]:
    return {
        "method": method,
        "lam": lam,
        "label": label,
        "test": {task: row["test"] for task, row in runs.items()},
        "val": {task: row["val"] for task, row in runs.items()},
        "multiple": 1 + sum(row["params_share"] for row in runs.values()),
        "bytes": sum(row["bytes"] for row in runs.values()),
        "runs": {task: row["name"] for task, row in runs.items()},
    }


def networks(lines: Sequence[Row], rows: Sequence[Row], single: Mapping[str, Row], base: Row) -> list[dict[str, Any]]:
    """The lines of TAPS as networks for all tasks of the study, with Δ_MTL; none where a task is missing.

    A base that is one task's network solves that task as its single-task network does.
    """
    own = base["name"] if base["kind"] == "task" else None
    by_name = {row["name"]: row for row in rows}
    found = []
    for line in lines:
        runs = [by_name[name] for name in line["runs"].values()]
        if line["method"] != TAPS or {*line["test"], own} - {None} != single.keys():
            continue
        values = {
            split: {task: line[split][task] if task in line[split] else single[task][split] for task in single}
            for split in ("test", "val")
        }
        name = "taps-chosen" if line["lam"] is None else f"taps-lam{line['lam']:g}"
        head = single[own]["params"] - base["params"] if own else 0
        found.append(
            {
                "name": name,
                "label": line["label"],
                "params": base["params"] + head + sum(row["own_params"] for row in runs),
                "flops": sum(row["flops"] for row in runs) + (single[own]["flops"] if own else 0),
                "seconds": sum({row["job"]: row["seconds"] for row in runs}.values()),
                "keys": list(dict.fromkeys(row["job"] for row in runs)),
                "epochs": list({row["job"]: row["epoch"] for row in runs}.values()),
                **values,
                "delta_mtl": _delta(values["test"], single, "test"),
                "delta_mtl_val": _delta(values["val"], single, "val"),
            }
        )
    return found


def _delta(values: Mapping[str, float], single: Mapping[str, Row], split: str) -> float:
    baseline = {task: row[split] for task, row in single.items()}
    return delta_mtl(values, baseline, {task: row["higher_is_better"] for task, row in single.items()})


def _directions(rows: Sequence[Row], single: Mapping[str, Row]) -> dict[str, bool]:
    return {task: single[task]["higher_is_better"] for task in dict.fromkeys(row["task"] for row in rows)}
