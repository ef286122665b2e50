"""What the jobs of the moe stage gave -> the lines of its results."""

from collections.abc import Mapping, Sequence
from math import inf
from statistics import mean
from typing import Any

from pipeline.moe_jobs import DENSE, FINETUNE, MOE, SCRATCH
from pipeline.results import delta_of

Row = Mapping[str, Any]
COSTS = ("seconds", "params", "flops")
SUMMED = ("seconds", "params", "backbone_params")
LABELS = {DENSE: "dense (MTHL.D)", FINETUNE: "pre-trained, fine-tuned", SCRATCH: "single-task"}


def method_line(
    name: str,
    method: str,
    lam: float | None,
    seed: int,
    results: Sequence[Row],
    tasks: Sequence[str],
    single: Mapping[str, Row],
) -> dict[str, Any]:
    """Map a method's results, one job for all tasks or one a task, to its line; sizes and times of several add up.

    Each result has its network's `backbone_params`, heads not counted, and `task_flops`, those of each task on an image
    of its size, beside what its job left. `flops` is their mean over tasks: routers differ, so data sets share no pass.
    """
    values = {
        split: {task: value for result in results for task, value in result[split].items() if task in tasks}
        for split in ("val", "test")
    }
    flops = {task: count for result in results for task, count in result["task_flops"].items()}
    return {
        "name": name,
        "label": f"MoE λ={lam:g}" if method == MOE else LABELS[method],
        "method": method,
        "lam": lam,
        "seed": seed,
        "jobs": [result["key"] for result in results],
        "epochs": [result["epoch"] for result in results],
        **{what: sum(result[what] for result in results) for what in SUMMED},
        "flops": round(mean(flops[task] for task in tasks)),
        "all_flops": sum(result["flops"] for result in results),
        **{split: {task: values[split][task] for task in tasks} for split in values},
        "delta_mtl": delta_of(values, single),
        "delta_mtl_val": delta_of(values, single, "val"),
        "picks": None,
        "probs": None,
        "mi": None,
    }


def scratch_results(single: Mapping[str, Row], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """The single-task networks of `pretrain` as results of jobs."""
    return [
        {**{what: single[task][what] for what in ("epoch", *COSTS)}, "key": single[task]["job"]}
        | {split: {task: single[task][split]} for split in ("val", "test")}
        for task in tasks
    ]


def chosen_line(lines: Sequence[Row]) -> Row:
    """The network with experts that is best on validation over λ; of equals the first, an undefined one last."""
    value = "delta_mtl_val"
    return max(
        (line for line in lines if line["method"] == MOE),
        key=lambda line: line[value] if line[value] == line[value] else -inf,
    )


def study_networks(lines: Sequence[Row], single: Mapping[str, Row]) -> list[dict[str, Any]]:
    """The networks with experts and the dense one as rows of the whole study; none where a task is missing."""
    shown = ("name", "label", "params", "seconds", "epochs", "val", "test", "delta_mtl", "delta_mtl_val")
    return [
        {**{what: line[what] for what in shown}, "keys": line["jobs"], "flops": line["all_flops"]}
        for line in lines
        if line["method"] in (MOE, DENSE) and line["test"].keys() == single.keys()
    ]
