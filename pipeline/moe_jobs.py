"""Configuration -> what the moe stage trains: a network with experts for every λ, and its baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from models.spec import ModelSpec, Setting
from pipeline.artifacts import DatasetManifest
from pipeline.config import Config
from pipeline.jobs import TrainJob, model_spec, task_specs, train_job

Single = Mapping[str, Mapping[str, Any]]
MOE, DENSE, FINETUNE, SCRATCH = "moe", "dense", "finetune", "scratch"
WITHOUT_EXPERTS: tuple[tuple[str, Setting], ...] = (("placement", ()),)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One job of the stage and what it tries; several of method "finetune" are one line of the results."""

    job: TrainJob
    method: str
    lam: float | None = None


def joint_tasks(config: Config) -> list[str]:
    """The tasks to train jointly: those named, or all but those to adapt to."""
    return config.moe.tasks or [name for name in config.tasks if name not in config.adapt.tasks]


def moe_spec(config: Config, manifests: Mapping[str, DatasetManifest], names: Sequence[str]) -> ModelSpec:
    """Map tasks to a network with experts for them, whose images are normalised as those of the joint tasks are."""
    known = {task.name: task for task in task_specs(config, manifests)}
    seen = model_spec(config, manifests, [known[name] for name in joint_tasks(config)], ())
    spec = model_spec(config, manifests, [known[name] for name in names], ())
    return replace(spec, strategy="moe", mean=seen.mean, std=seen.std, settings=_settings(config))


def with_settings(spec: ModelSpec, **changes: Setting) -> ModelSpec:
    """The same network with some settings changed."""
    return replace(spec, settings=tuple(sorted((dict(spec.settings) | changes).items())))


def moe_trials(config: Config, manifests: Mapping[str, DatasetManifest], single: Single) -> list[Trial]:
    """The network with experts for every λ (Tab. 1, MTHL), and without them (MTHL.D)."""
    moe, spec = config.moe, moe_spec(config, manifests, joint_tasks(config))
    trials = [
        Trial(job=_joint(config, manifests, spec, single, f"moe-lam{lam:g}", lam), method=MOE, lam=lam)
        for lam in moe.lams
    ]
    if DENSE in moe.baselines:
        dense = replace(spec, settings=WITHOUT_EXPERTS)
        trials.append(Trial(job=_joint(config, manifests, dense, single, DENSE, 0.0), method=DENSE))
    return trials


def finetune_trials(config: Config, manifests: Mapping[str, DatasetManifest], single: Single) -> list[Trial]:
    """Each other task alone from the single-task network of one, whose normalisation it keeps (Tab. 1, Pre. & FT.)."""
    source = config.moe.pretrained_on
    if FINETUNE not in config.moe.baselines or source is None:
        return []
    known = {task.name: task for task in task_specs(config, manifests)}
    seen = model_spec(config, manifests, [known[source]], ())
    trials = []
    for task in joint_tasks(config):
        spec = replace(moe_spec(config, manifests, [task]), mean=seen.mean, std=seen.std, settings=WITHOUT_EXPERTS)
        start = {"dense": single[source]["job"]}
        job = train_job(config, manifests, spec, name=f"{task}-{FINETUNE}", seed=config.seed, start=start)
        if task != source:
            trials.append(Trial(job=job, method=FINETUNE))
    return trials


def _joint(
    config: Config,
    manifests: Mapping[str, DatasetManifest],
    spec: ModelSpec,
    single: Single,
    name: str,
    lam: float,
) -> TrainJob:
    moe = config.moe
    return train_job(
        config,
        manifests,
        spec,
        name=name,
        seed=config.seed,
        reference={task: row["val"] for task, row in single.items()},
        train=config.train.model_copy(update={"epochs": moe.epochs or config.train.epochs}),
        lam=lam,
        draws=moe.ranks if moe.sampling == "per_rank" else 1,
    )


def _settings(config: Config) -> tuple[tuple[str, Setting], ...]:
    moe = config.moe
    placement = moe.placement if isinstance(moe.placement, str) else tuple(moe.placement)
    names = ("expert_bias", "experts", "hidden", "momentum", "router_width", "top_k", "upcycled")
    return tuple(sorted({**{name: getattr(moe, name) for name in names}, "placement": placement}.items()))
