"""Adapt a base to every task by TAPS, over λ and learning rates, and by the baselines.    python -m stages.taps

Leaves artifacts/taps/bundle/ (one base, one small delta per task: the chosen λ), trials.parquet (every metric of every
epoch) and metrics.json: what each run reached, which layers it made its own and what they cost.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from models.bundle import adopt_task, load_network
from models.sharing.taps import TapsModel
from models.task_cost import TaskCost, task_cost
from pipeline.about import write_about
from pipeline.adapted_results import chosen, methods, networks
from pipeline.adapting import Adaptation, Base, base_of, baseline_jobs, better_half, matched_jobs, shared_job, taps_jobs
from pipeline.artifacts import (
    ARTIFACTS,
    TRIALS,
    DatasetManifest,
    read_json,
    read_manifests,
    write_json,
    write_table,
    writing,
)
from pipeline.fitting import unfinished
from pipeline.jobs import TrainJob
from pipeline.result_lines import method_lines
from pipeline.results import delta_of, trials
from pipeline.storage import JobFolder
from stages.session import Session, session, start
from stages.training import advance_jobs, train_jobs

Row = Mapping[str, Any]
Rows = list[Row]


def main() -> None:
    with session("taps") as at:
        found = _study(at) if at.config.taps.lams else None
        with writing("taps") as folder:
            if found is None:
                write_json(folder / "metrics.json", {"runs": [], "methods": [], "networks": []})
                at.result("not in this study: taps.lams names no λ")
                return
            jobs, picked, value = found
            write_table(folder / "trials.parquet", [row for job in jobs for row in trials(job, at.machine)], TRIALS)
            layers = _bundle(at, folder / "bundle", picked)
            write_json(folder / "metrics.json", {**value, "layers": layers})


def _study(at: Session) -> tuple[list[TrainJob], dict[str, Row], dict[str, Any]]:
    """Train the sweep, then what is measured by it; give the jobs, each task's chosen run, and what to write."""
    manifests, single = read_manifests(), read_json(ARTIFACTS / "pretrain" / "metrics.json")
    settings, base = at.config.taps, _base(at, manifests, single)
    sweep = [*taps_jobs(at.config, manifests, base, single), *baseline_jobs(at.config, manifests, base)]
    rows = _train(at, sweep, single)
    picked = chosen(rows, single, settings.budget)
    weights = {task: row["active_weights"] for task, row in picked.items()}
    matched = matched_jobs(at.config, manifests, base, weights)
    rows += _train(at, matched, single)
    about = {"kind": base.kind, "name": settings.base, "job": base.job, "params": rows[0]["base_params"]}
    lines = methods(rows, picked, single, settings.reference_errors)
    tasks = {
        task: {key: single[task][key] for key in ("metric", "higher_is_better")} | {"chosen": row["name"]}
        for task, row in picked.items()
    }
    value = {"base": about, "joint": settings.joint, "threshold": settings.threshold, "tasks": tasks}
    found = {"runs": rows, "methods": lines, "networks": networks(lines, rows, single, about)}
    deltas = {network["label"]: network["delta_mtl"] for network in found["networks"]}
    at.result(method_lines(lines, rows, deltas))
    trained = {row["job"] for row in rows}
    return [i.job for i in [*sweep, *matched] if i.job.key in trained], picked, value | found


def _base(at: Session, manifests: Mapping[str, DatasetManifest], single: Mapping[str, Any]) -> Base:
    """The base, trained here where no stage has done so yet."""
    base = base_of(at.config, manifests)
    if base.kind == "task":
        return base_of(at.config, manifests, single[at.config.taps.base]["job"])
    if base.kind == "pretrained":
        return base
    job = shared_job(at.config, manifests, single)
    if unfinished([job], at.machine):
        train_jobs(at, [job], {job.name: {"strategy": "branched"}}, lambda *_: {})
    return base_of(at.config, manifests, job.key)


def _train(at: Session, sweep: Sequence[Adaptation], single: Mapping[str, Any]) -> Rows:
    """Train jobs at once; give a row for each of their tasks."""
    costs: dict[str, dict[str, TaskCost]] = {}

    def more(job: TrainJob, result: Mapping[str, Any]) -> dict[str, float]:
        costs[job.name] = _costs(at, job)
        own = costs[job.name].values()
        values = {"final/delta_mtl": delta_of(result, single), "taps/added_params_pct": 100 * sum(c.share for c in own)}
        shares = [cost.layers_share for cost in own if cost.layers_share is not None]
        return values | ({"taps/active_pct": 100 * sum(shares) / len(shares)} if shares else {})

    if not sweep:
        return []
    tags = {item.job.name: _tags(item) for item in sweep}
    for epoch in at.config.taps.halving:
        scores = advance_jobs(at, [item.job for item in sweep], tags, epoch)
        before, sweep = len(sweep), better_half(sweep, scores)
        at.say(f"after epoch {epoch}, {len(sweep)} of {before} networks go on")
    results = train_jobs(at, [item.job for item in sweep], tags, more)
    return [
        _row(item, task, results[item.job.name], cost) for item in sweep for task, cost in costs[item.job.name].items()
    ]


def _tags(item: Adaptation) -> dict[str, str]:
    lam = {} if item.lam is None else {"lam": f"{item.lam:g}"}
    return {"strategy": "taps", "method": item.method, "task": item.task or "joint", "lr": f"{item.lr:g}", **lam}


def _row(item: Adaptation, task: str, result: Mapping[str, Any], cost: TaskCost) -> dict[str, Any]:
    return {
        "name": item.job.name if item.task else f"{task}-{item.job.name}",
        "method": item.method,
        "task": task,
        "lam": item.lam,
        "lr": item.lr,
        "seed": item.job.seed,
        "job": item.job.key,
        "epoch": result["epoch"],
        "val": result["val"][task],
        "test": result["test"][task],
        "flops": result["flops"] // len(result["test"]),
        "seconds": result["seconds"],
        **cost.row(),
    }


def _costs(at: Session, job: TrainJob) -> dict[str, TaskCost]:
    with TemporaryDirectory() as draft:
        JobFolder(at.machine.storage, job.key).download("bundle", Path(draft))
        network = load_network(Path(draft))
    return {task: task_cost(network, task) for task in network.tasks}


def _bundle(at: Session, folder: Path, picked: Mapping[str, Mapping[str, Any]]) -> Rows:
    """Put the chosen tasks' deltas beside their base; give the gated layers, from input to output."""
    for task, row in picked.items():
        with TemporaryDirectory() as draft:
            JobFolder(at.machine.storage, row["job"]).download("bundle", Path(draft))
            adopt_task(Path(draft), task, folder)
    network = load_network(folder)
    assert isinstance(network, TapsModel)
    jobs = {task: row["job"] for task, row in picked.items()}
    single = read_json(ARTIFACTS / "pretrain" / "metrics.json")
    write_about(folder, network.spec.tasks, jobs, at.machine, read_manifests(), single)
    return [
        {
            "name": layer.name,
            "type": layer.kind,
            "params": sum(network.base.get_parameter(name).numel() for name in layer.parameters),
            "location": int(layer.parameters[0].partition(".")[0]) + 1,
        }
        for layer in network.layers
    ]


if __name__ == "__main__":
    start(main, logged=True)
