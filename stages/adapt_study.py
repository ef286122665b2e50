"""A network with experts -> that network in every mode, and with one data set after another; `stages.adapt`'s study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.bundle import save
from models.expert_growth import join
from models.sharing.moe import MoeModel
from pipeline import result_lines
from pipeline.about import write_about
from pipeline.adapt_jobs import Adaptation, Base, added_jobs, base_of, first_jobs, later_jobs, lwf_jobs
from pipeline.adapt_results import best_runs, continual_line, label_of, mode_lines, run_row
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
from pipeline.expert_usage import layers_of, usage_of
from pipeline.jobs import TrainJob
from pipeline.results import copy_result, delta_of, trials
from pipeline.strategies import LWF, ROUTER
from pipeline.trained import measure_on_test, trained_experts
from stages.session import Session
from stages.training import train_jobs

Row = Mapping[str, Any]
Rows = list[dict[str, Any]]
PREPARED = ARTIFACTS / "prepare"


@dataclass(frozen=True, kw_only=True)
class Study:
    """What all parts of the stage need, and the jobs that they trained, with a row for each."""

    at: Session
    manifests: Mapping[str, DatasetManifest]
    single: Mapping[str, Row]
    base: Base
    jobs: list[TrainJob] = field(default_factory=list)
    rows: Rows = field(default_factory=list)

    def measure(self, network: MoeModel) -> dict[str, float]:
        return measure_on_test(network, self.at.config, self.manifests, self.at.machine, PREPARED)


def train_study(at: Session) -> None:
    """Train everything and leave what `stages.adapt` names."""
    jobs, joined, value = _results(at)
    manifests, single = read_manifests(), read_json(ARTIFACTS / "pretrain" / "metrics.json")
    with writing("adapt") as folder:
        save(joined, folder / "bundle")
        write_about(folder / "bundle", joined.spec.tasks, _trained_by(value), at.machine, manifests, single)
        kept = {name for mode in value["modes"] for name in mode["runs"].values()}
        for job in jobs:
            if job.name in kept:
                copy_result(job, at.machine, folder / job.name, manifests, single)
        write_table(folder / "trials.parquet", [row for job in jobs for row in trials(job, at.machine)], TRIALS)
        write_json(folder / "metrics.json", value)


def _trained_by(value: Mapping[str, Any]) -> dict[str, str]:
    """Map each task of the joined network to the key of the job that trained it."""
    added = next(line for line in value["continual"]["methods"] if line["method"] == "experts")
    base = {task: str(value["base"]["job"]) for task in value["base"]["tasks"]}
    return base | dict(zip(value["tasks"], added["jobs"], strict=True))


def _results(at: Session) -> tuple[list[TrainJob], MoeModel, dict[str, Any]]:
    """Train everything; give the jobs, the network that knows all data sets, and what to write."""
    manifests, single = read_manifests(), read_json(ARTIFACTS / "pretrain" / "metrics.json")
    moe = read_json(ARTIFACTS / "moe" / "metrics.json")
    (line,) = [run for run in moe["runs"] if run["name"] == moe["chosen"]]
    study = Study(at=at, manifests=manifests, single=single, base=base_of(at.config, manifests, line["jobs"][0]))
    network = trained_experts(study.base.job, at.machine)
    about = {"name": line["name"], "job": study.base.job, "flops": line["flops"], "params": line["params"]}
    about |= {"backbone_params": network.backbone_params(), "tasks": list(network.tasks), "datasets": network.datasets}
    rows = _modes(study)
    # The new routers' use of the experts was needed, though nobody asked for that mode: it stands before the others.
    unasked = [ROUTER] if any(row["mode"] == ROUTER for row in rows) and ROUTER not in at.config.adapt.modes else []
    labels = {mode: label_of(mode, at.config.adapt.mode(mode)) for mode in [*unasked, *at.config.adapt.modes]}
    modes = mode_lines(rows, labels, single)
    at.result(result_lines.mode_lines(modes))
    joined, continual = _continual(study, network, line["name"])
    tasks = {task: _about(study, task) for task in at.config.adapt.tasks}
    found = {"base": about, "tasks": tasks, "modes": modes, "runs": study.rows, "layers": layers_of(network)}
    return study.jobs, joined, {**found, "continual": continual}


def _modes(study: Study) -> Rows:
    """Every mode for every task (Tab. 3): first those that need not know which experts a new router uses."""
    config = study.at.config
    rows = _train(study, first_jobs(config, study.manifests, study.base))
    routers = best_runs([row for row in rows if row["mode"] == ROUTER], study.single)
    keys, picks = ({task: row[what] for task, row in routers.items()} for what in ("job", "picks"))
    return rows + _train(study, later_jobs(config, study.manifests, study.base, keys, picks))


def _continual(study: Study, network: MoeModel, name: str) -> tuple[MoeModel, dict[str, Any]]:
    """Teach one data set after another (Tab. 4): by experts of its own, and by Learning without Forgetting."""
    config, tasks = study.at.config, study.at.config.adapt.tasks
    before = study.measure(network)
    runs = best_runs(_train(study, added_jobs(config, study.manifests, study.base)), study.single)
    grown = [trained_experts(runs[task]["job"], study.at.machine) for task in tasks]
    steps = [network, *(join(network, grown[: count + 1]) for count in range(len(grown)))]
    values = [before, *map(study.measure, steps[1:])]
    own = config.adapt.added
    label = f"own router{f' + {own} expert' if own else ''}{'s' if own > 1 else ''}"
    lines = [continual_line("experts", label, [runs[t] for t in tasks], values, [s.backbone_params() for s in steps])]
    if config.adapt.lwf:
        lines.append(_forgetful(study, before, network))
    for line in lines:
        study.at.result(result_lines.changed_lines(line["label"], list(values[-1]), line["matrix"]))
    metrics = {task: _metric(study, task) for task in values[-1]}
    return steps[-1], {"tasks": list(values[-1]), "steps": [name, *tasks], "metrics": metrics, "methods": lines}


def _forgetful(study: Study, before: Mapping[str, float], network: MoeModel) -> dict[str, Any]:
    """Learning without Forgetting, each task from the network of the one before."""
    key, values, sizes, runs = study.base.job, [before], [network.backbone_params()], []
    for count, task in enumerate(study.at.config.adapt.tasks):
        learned = study.at.config.adapt.tasks[:count]
        rows = _train(study, lwf_jobs(study.at.config, study.manifests, learned, key))
        runs.append(best_runs(rows, study.single)[task])
        key = runs[-1]["job"]
        student = trained_experts(key, study.at.machine)
        values.append(study.measure(student))
        sizes.append(student.backbone_params())
    return continual_line(LWF, "LwF", runs, values, sizes)


def _train(study: Study, items: Sequence[Adaptation]) -> Rows:
    """Train jobs at once; give a row for each."""
    if not items:
        return []
    jobs = [item.job for item in items]
    tags = {i.job.name: {"strategy": "moe", "method": i.mode, "task": i.task, "lr": f"{i.lr:g}"} for i in items}
    results = train_jobs(study.at, jobs, tags, lambda _, result: {"final/delta_mtl": delta_of(result, study.single)})
    study.jobs.extend(jobs)
    rows = []
    for item in items:
        network = trained_experts(item.job.key, study.at.machine)
        usage = usage_of(item.job, network, study.at.machine, PREPARED)
        rows.append(run_row(item, results[item.job.name], network, [layer[0] for layer in usage.picks]))
    study.rows.extend(rows)
    return rows


def _about(study: Study, task: str) -> dict[str, Any]:
    row = study.single[task]
    own = {"dataset": study.at.config.tasks[task].dataset, "scratch_test": row["test"], "scratch_params": row["params"]}
    return _metric(study, task) | own


def _metric(study: Study, task: str) -> dict[str, Any]:
    return {key: study.single[task][key] for key in ("metric", "higher_is_better")}
