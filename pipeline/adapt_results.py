"""What the jobs of the adapt stage gave -> its runs, its modes, and what learning did to what was learned before."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import inf
from statistics import mean
from typing import Any

from models.accounting import count_params
from models.sharing.moe import MoeModel
from pipeline.adapt_jobs import Adaptation, Picks
from pipeline.strategies import Mode
from pipeline.trained import task_flops

Row = Mapping[str, Any]


def run_row(item: Adaptation, result: Row, network: MoeModel, picks: Picks) -> dict[str, Any]:
    """Map a job of one new task, its network and how that uses the experts to its row."""
    (route,) = [network.routes[task.dataset] for task in network.spec.tasks if task.name == item.task]
    return {
        "name": item.job.name,
        "mode": item.mode,
        "task": item.task,
        "lr": item.lr,
        "seed": item.job.seed,
        "job": item.job.key,
        "epoch": result["epoch"],
        "seconds": result["seconds"],
        "val": result["val"][item.task],
        "test": result["test"][item.task],
        "trained_params": network.trained_params(),
        "model_params": network.backbone_params(),
        "head_params": count_params(network.heads[network.spec.task_names.index(item.task)]),
        "flops": task_flops(network)[item.task],
        "experts": [len(numbers) for numbers in route.experts],
        "top_k": route.top_k,
        "picks": picks,
    }


def label_of(name: str, mode: Mode) -> str:
    """Map a mode to what it does, in words."""
    parts = ["router" if mode.learns == "own" else "all"]
    if mode.experts:
        how = "" if mode.select == "random" else f" ({mode.select} used)"
        parts[0] += f" + {mode.experts} expert{'s' if mode.experts > 1 else ''}{how}"
    if mode.prune:
        parts.append(f"{mode.prune:.0%} of experts pruned")
    if mode.threshold:
        parts.append(f"experts below {mode.threshold:.0%} of use pruned")
    if mode.top_k:
        parts.append(f"top {mode.top_k}")
    if mode.adapter:
        parts.append(f"adapter of {mode.adapter}")
    words = {"full": "full fine-tuning", "router": "router only", "adapter": f"adapter of {mode.adapter}"}
    return words.get(name, ", ".join(parts))


def mode_lines(rows: Sequence[Row], labels: Mapping[str, str], single: Mapping[str, Row]) -> list[dict[str, Any]]:
    """One line a mode, in the order of `labels`, over all new tasks (Tab. 3): of several learning rates each task's
    best on validation.
    """
    lines = []
    for mode in labels:
        runs = best_runs([row for row in rows if row["mode"] == mode], single)
        same = len({single[task]["metric"] for task in runs}) == 1
        sizes = {what: mean(run[what] for run in runs.values()) for what in ("trained_params", "model_params", "flops")}
        lines.append(
            {
                "mode": mode,
                "label": labels[mode],
                **{split: {task: run[split] for task, run in runs.items()} for split in ("val", "test")},
                "mean": mean(run["test"] for run in runs.values()) if same else None,
                **sizes,
                "runs": {task: run["name"] for task, run in runs.items()},
            }
        )
    full: Row = next((line for line in lines if line["mode"] == "full"), {})
    shares = {"trained_share": "trained_params", "params_share": "model_params", "flops_share": "flops"}
    return [
        {**line, **{share: line[what] / full[what] if full else None for share, what in shares.items()}}
        for line in lines
    ]


def best_runs(rows: Sequence[Row], single: Mapping[str, Row]) -> dict[str, Row]:
    """Each task's run that is best on validation, of equals the first, an undefined one last."""

    def score(row: Row) -> float:
        value = row["val"] if single[row["task"]]["higher_is_better"] else -row["val"]
        return value if value == value else -inf

    tasks = dict.fromkeys(row["task"] for row in rows)
    return {task: max((row for row in rows if row["task"] == task), key=score) for task in tasks}


def continual_line(
    method: str, label: str, runs: Sequence[Row], values: Sequence[Mapping[str, float]], sizes: Sequence[int]
) -> dict[str, Any]:
    """Map the runs that taught one data set after another to a line of Tab. 4 and its forgetting matrix.

    `values` are the tasks' metrics before the first run and after each; `sizes` the backbone's parameters then.
    """
    tasks = list(values[-1])
    return {
        "method": method,
        "label": label,
        "new_params": [after - before for before, after in pairwise(sizes)],
        "trained_params": [run["trained_params"] for run in runs],
        "matrix": [[row.get(task) for task in tasks] for row in values],
        "jobs": [run["job"] for run in runs],
        "params": list(sizes),
    }
