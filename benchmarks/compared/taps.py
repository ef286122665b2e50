"""TAPS for a comparison: half of the compute for a base of all tasks, half to adapt it to each; fine-tuning beside."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.compared.compute import epochs_for
from benchmarks.compared.study import Row, Study, for_epochs, network_row
from models.task_cost import TaskCost, task_cost
from pipeline.adapted_results import best
from pipeline.adapting import Adaptation, base_of, baseline_jobs, shared_job, taps_jobs
from pipeline.budgets import requests
from pipeline.config import Config
from pipeline.jobs import TrainJob
from pipeline.plan_costs import unit_costs
from pipeline.trained import trained_network

TUNED = "fine_tuning"


def taps_rows(study: Study, single: Mapping[str, Row], target: float) -> list[dict]:
    """Fine-tuning, and within each budget the λ of each task that is best on validation, trained at a compute.

    A budget leaves every task the same room for weights of its own.
    """

    def base_job(epochs: int) -> TrainJob:
        return shared_job(for_epochs(study.config, epochs), study.manifests, single)

    base = base_job(epochs_for(target / 2, lambda epochs: study.flops([base_job(epochs)])))
    base = replace(base, name="taps-base")
    study.trained([base])
    spent = study.flops([base])

    def sweep(epochs: int) -> list[Adaptation]:
        config = _adapting(study.config, epochs)
        start = base_of(config, study.manifests, base.key)
        return [*taps_jobs(config, study.manifests, start, single), *baseline_jobs(config, study.manifests, start)]

    def one(epochs: int) -> float:
        return study.flops([item.job for item in sweep(epochs) if item.method == TUNED])

    epochs = epochs_for(target - spent, one)
    tried = sweep(epochs)
    results = study.trained([item.job for item in tried])
    rows = [_adapted(study, item, result) for item, result in zip(tried, results, strict=True)]
    steps = {"base": base.train.epochs, "task": epochs}
    common = {"flops": spent + one(epochs), "epochs": steps}
    tuned = _whole("fine-tuned", "", [row for row in rows if row["method"] == TUNED], single, 0)
    found = [{**tuned, **common, "further": 0.0}]
    others = (len(study.config.taps.lams) - 1) * one(epochs)
    for request in requests(study.config.trees, unit_costs(study.shared)):
        picked = within(rows, single, request.limits["params"])
        row = _whole("TAPS", request.text, picked, single, picked[0]["cost"].base)
        if row["params"] > request.limits["params"]:
            raise ValueError(f"taps.lams: TAPS has {row['params']:,} parameters, beyond {request.text}; add a larger λ")
        found.append({**row, **common, "further": others})
    return found


def within(rows: Sequence[Row], single: Mapping[str, Row], limit: float) -> list[Row]:
    """Each task's best TAPS run on validation within its part of what a number of parameters leaves beside the base.

    Where no run of a task has so few, the one with fewest.
    """
    runs = {task: [row for row in rows if row["task"] == task and row["method"] == "taps"] for task in single}
    heads = sum(group[0]["cost"].head for group in runs.values())
    room = (limit - next(iter(runs.values()))[0]["cost"].base - heads) / len(runs)
    picked = []
    for task, group in runs.items():
        cost: TaskCost = group[0]["cost"]
        share = room / (cost.backbone + cost.norm + cost.head)  # as `params_share` counts
        picked.append(best(group, single[task]["higher_is_better"], share))
    return picked


def _adapting(config: Config, epochs: int) -> Config:
    taps = config.taps.model_copy(update={"epochs": epochs, "baselines": [TUNED]})
    return config.model_copy(update={"taps": taps})


def _adapted(study: Study, item: Adaptation, result: Row) -> dict[str, Any]:
    cost = task_cost(trained_network(item.job.key, study.machine), item.task)
    return {
        "task": item.task,
        "method": item.method,
        "lam": item.lam,
        "val": result["val"][item.task],
        "test": result["test"][item.task],
        "params_share": cost.share,
        "cost": cost,
    }


def _whole(strategy: str, budget: str, picked: Sequence[Row], single: Mapping[str, Row], base: int) -> dict[str, Any]:
    """One network for all tasks from a run for each."""
    values = {split: {row["task"]: row[split] for row in picked} for split in ("val", "test")}
    return network_row(
        f"{strategy} {budget}".strip(),
        strategy,
        budget,
        values,
        single,
        params=base + sum(row["cost"].own for row in picked),
        lams={row["task"]: row["lam"] for row in picked},
        layers={row["task"]: sum(row["cost"].is_open or ()) for row in picked},
    )
