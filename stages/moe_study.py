"""Settings -> a network with experts for all data sets, over λ, and its baselines; `stages.moe`'s study."""

from collections.abc import Mapping
from typing import Any

from pipeline.artifacts import ARTIFACTS, TRIALS, read_json, read_manifests, write_json, write_table, writing
from pipeline.expert_usage import Usage, layers_of, usage_of
from pipeline.jobs import TrainJob
from pipeline.moe_jobs import FINETUNE, MOE, SCRATCH, Trial, finetune_trials, joint_tasks, moe_trials
from pipeline.moe_results import chosen_line, method_line, scratch_results, study_networks
from pipeline.result_lines import network_lines
from pipeline.results import copy_result, delta_of, trials
from pipeline.trained import task_flops, trained_experts, trained_network, without_heads
from stages.session import Session
from stages.training import train_jobs

Single = Mapping[str, Mapping[str, Any]]


def train_study(at: Session) -> None:
    """Train everything and leave what `stages.moe` names."""
    jobs, value = _study(at)
    manifests, single = read_manifests(), read_json(ARTIFACTS / "pretrain" / "metrics.json")
    with writing("moe") as folder:
        for job in jobs:
            copy_result(job, at.machine, folder / job.name, manifests, single)
        write_table(folder / "trials.parquet", [row for job in jobs for row in trials(job, at.machine)], TRIALS)
        write_json(folder / "metrics.json", value)


def _study(at: Session) -> tuple[list[TrainJob], dict[str, Any]]:
    """Train everything; give the jobs, and what to write."""
    manifests, single = read_manifests(), read_json(ARTIFACTS / "pretrain" / "metrics.json")
    tried = [*moe_trials(at.config, manifests, single), *finetune_trials(at.config, manifests, single)]
    usage: dict[str, Usage] = {}

    def more(job: TrainJob, result: Mapping[str, Any]) -> dict[str, float]:
        values = {"final/delta_mtl": delta_of(result, single)}
        if job.name not in with_experts:
            return values
        usage[job.name] = usage_of(job, trained_experts(job.key, at.machine), at.machine, ARTIFACTS / "prepare")
        information = usage[job.name].information()
        return values | {"moe/mutual_information": sum(information) / len(information)}

    with_experts = {trial.job.name for trial in tried if trial.method == MOE}
    results = train_jobs(at, [trial.job for trial in tried], {t.job.name: _tags(t) for t in tried}, more)
    tasks = joint_tasks(at.config)
    lines = _lines(at, tried, results, single)
    for line in lines:
        if used := usage.get(line["name"]):
            line |= {"picks": used.picks, "probs": used.probs, "mi": used.information()}
    at.result(network_lines(lines))
    chosen = chosen_line(lines)
    network = trained_experts(chosen["jobs"][0], at.machine)
    value = {
        "tasks": {task: _about(task, single) | {"dataset": at.config.tasks[task].dataset} for task in tasks},
        "datasets": list(network.datasets),
        "layers": layers_of(network),
        "runs": lines,
        "chosen": chosen["name"],
        "networks": study_networks(lines, single),
    }
    return [trial.job for trial in tried], value


def _lines(at: Session, tried: list[Trial], results: Mapping[str, Any], single: Single) -> list[dict[str, Any]]:
    """One line a method; the single-task networks and those that were fine-tuned are one line each."""
    tasks = joint_tasks(at.config)
    found = [(t.job.name, t.method, t.lam, [results[t.job.name]]) for t in tried if t.method != FINETUNE]
    if tuned := [results[trial.job.name] for trial in tried if trial.method == FINETUNE]:
        source = at.config.moe.pretrained_on
        first = scratch_results(single, [task for task in tasks if task == source])
        found.append((FINETUNE, FINETUNE, None, [*first, *tuned]))
    if SCRATCH in at.config.moe.baselines:
        found.append((SCRATCH, SCRATCH, None, scratch_results(single, tasks)))
    return [
        method_line(name, method, lam, at.config.seed, [_sized(at, row) for row in rows], tasks, single)
        for name, method, lam, rows in found
    ]


def _sized(at: Session, result: Mapping[str, Any]) -> dict[str, Any]:
    network = trained_network(result["key"], at.machine)
    return {**result, "backbone_params": without_heads(network), "task_flops": task_flops(network)}


def _tags(trial: Trial) -> dict[str, str]:
    lam = {} if trial.lam is None else {"lam": f"{trial.lam:g}"}
    return {"strategy": "moe", "method": trial.method, **lam}


def _about(task: str, single: Single) -> dict[str, Any]:
    return {key: single[task][key] for key in ("metric", "higher_is_better")}
