"""Configuration -> what the taps stage trains: a base, TAPS over λ and learning rates, the baselines beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from models.branch_tree import BranchTree
from models.spec import ModelSpec, Setting, TaskSpec
from pipeline.artifacts import DatasetManifest
from pipeline.config import Config, Train
from pipeline.jobs import TrainJob, model_spec, sized, task_specs, train_job, tree_job
from pipeline.strategies import Taps

MATCHED = "manual_freezing"  # the baseline that is given as many weights as TAPS took


@dataclass(frozen=True, kw_only=True)
class Base:
    """What is adapted: its network with one branch, and the job that trained it (none for timm's weights)."""

    kind: str
    spec: ModelSpec
    job: str = ""

    @property
    def start(self) -> dict[str, str]:
        return {"base": self.job} if self.job else {}


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """One job of the sweep and what it tries; `task` is "" for a job that trains all tasks jointly."""

    job: TrainJob
    method: str
    task: str
    lr: float
    lam: float | None = None


def adapted_tasks(config: Config) -> list[str]:
    """The tasks to adapt to: those named, or all but the base's own."""
    return config.taps.tasks or [name for name in config.tasks if name != config.taps.base]


def shared_job(
    config: Config, manifests: Mapping[str, DatasetManifest], single: Mapping[str, Mapping[str, Any]]
) -> TrainJob:
    """The fully shared tree of all tasks: the very job that the branched stage trains."""
    groups = BranchTree.shared(len(config.tasks), config.backbone.locations).groups
    return tree_job(config, manifests, groups, single, name="shared", seed=config.branched.seeds[0])


def base_of(config: Config, manifests: Mapping[str, DatasetManifest], job: str = "") -> Base:
    """Map `taps.base` and the job that trained it to the base; images are normalised as they were for it."""
    name = config.taps.base
    kind = name if name in ("shared", "pretrained") and name not in config.tasks else "task"
    chosen = {"task": [name], "shared": list(config.tasks), "pretrained": adapted_tasks(config)}[kind]
    tasks = [task for task in task_specs(config, manifests) if task.name in chosen]
    spec = model_spec(config, manifests, tasks, ())
    return Base(
        kind=kind, spec=replace(spec, backbone=replace(spec.backbone, pretrained=kind == "pretrained")), job=job
    )


def taps_jobs(
    config: Config,
    manifests: Mapping[str, DatasetManifest],
    base: Base,
    single: Mapping[str, Mapping[str, Any]],
) -> list[Adaptation]:
    """TAPS for every λ and learning rate: a job a task (Eq. 3), or with `taps.joint` one for all of them (Eq. 4)."""
    taps, tasks = config.taps, _tasks(config, manifests)
    return [
        Adaptation(
            job=_taps_job(config, manifests, base, group, lam, lr, single), method="taps", task=name, lr=lr, lam=lam
        )
        for name, group in ({"": tasks} if taps.joint else {task.name: [task] for task in tasks}).items()
        for lam in taps.lams
        for lr in taps.lrs
    ]


def _taps_job(
    config: Config,
    manifests: Mapping[str, DatasetManifest],
    base: Base,
    tasks: Sequence[TaskSpec],
    lam: float,
    lr: float,
    single: Mapping[str, Mapping[str, Any]],
) -> TrainJob:
    taps = config.taps
    settings: dict[str, Setting] = {
        "gated": tuple(taps.gated),
        "joint": taps.joint,
        "score": taps.score,
        "score_lr": taps.score_lr,
        "threshold": taps.threshold,
        "weight_decay": taps.weight_decay,
    }
    return train_job(
        config,
        manifests,
        _network(base, manifests, tasks, "taps", settings),
        name=f"{'joint' if taps.joint else tasks[0].name}-taps-lam{lam:g}-lr{lr:g}",
        seed=config.seed,
        reference={task.name: single[task.name]["val"] for task in tasks} if taps.joint else None,
        start=base.start,
        train=_schedule(config, lr),
        lam=lam,
        lam_warmup=taps.lam_warmup_epochs,
    )


def baseline_jobs(config: Config, manifests: Mapping[str, DatasetManifest], base: Base) -> list[Adaptation]:
    """Every baseline for every task and learning rate, on the schedule of TAPS; all but those that wait for it."""
    return [
        _baseline(config, manifests, base, task, method, lr, {})
        for task in _tasks(config, manifests)
        for method in config.taps.baselines
        if method != MATCHED
        for lr in config.taps.lrs
    ]


def matched_jobs(
    config: Config, manifests: Mapping[str, DatasetManifest], base: Base, weights: Mapping[str, int]
) -> list[Adaptation]:
    """Manual freezing with as many weights as TAPS took for each task (paper App. E)."""
    return [
        _baseline(config, manifests, base, task, MATCHED, lr, {"weights": weights[task.name]})
        for task in _tasks(config, manifests)
        if MATCHED in config.taps.baselines
        for lr in config.taps.lrs
    ]


def _baseline(
    config: Config,
    manifests: Mapping[str, DatasetManifest],
    base: Base,
    task: TaskSpec,
    method: str,
    lr: float,
    settings: Mapping[str, Setting],
) -> Adaptation:
    settings = {"method": method, **config.taps.baseline_settings.get(method, {}), **settings}
    job = train_job(
        config,
        manifests,
        _network(base, manifests, [task], "adapted", settings),
        name=f"{task.name}-{method}-lr{lr:g}",
        seed=config.seed,
        start=base.start,
        train=_schedule(config, lr),
    )
    return Adaptation(job=job, method=method, task=task.name, lr=lr)


def better_half(sweep: Sequence[Adaptation], scores: Mapping[str, float]) -> list[Adaptation]:
    """Of each task's, method's and λ's learning rates, the better half by score on validation, in their order.

    One is always left; jobs without a score, which diverged, go first. Every machine drops the same ones, which is why
    this is successive halving and not its asynchronous form.
    """
    groups: dict[tuple[str, str, float | None], list[Adaptation]] = {}
    for item in sweep:
        groups.setdefault((item.task, item.method, item.lam), []).append(item)
    kept = {
        item.job.name
        for group in groups.values()
        for item in sorted(group, key=lambda item: -scores.get(item.job.name, -inf))[: (len(group) + 1) // 2]
    }
    return [item for item in sweep if item.job.name in kept]


def _network(
    base: Base,
    manifests: Mapping[str, DatasetManifest],
    tasks: Sequence[TaskSpec],
    strategy: str,
    settings: Mapping[str, Setting],
) -> ModelSpec:
    tasks = sized(tasks, manifests, base.spec.backbone)
    return replace(base.spec, strategy=strategy, tasks=tasks, settings=tuple(sorted(settings.items())))


def _tasks(config: Config, manifests: Mapping[str, DatasetManifest]) -> list[TaskSpec]:
    asked = adapted_tasks(config)
    return [task for task in task_specs(config, manifests) if task.name in asked]


def _schedule(config: Config, lr: float) -> Train:
    taps: Taps = config.taps
    own = {"epochs": taps.epochs, "optimiser": taps.optimiser, "weight_decay": taps.weight_decay, "lr": lr}
    return config.train.model_copy(update=own)
