"""Configuration -> what the adapt stage trains: a network with experts, taught new data sets in every mode."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import torch

from models.sharing.moe import MoeModel
from models.spec import ModelSpec, Route
from pipeline.artifacts import DatasetManifest
from pipeline.config import Config, Train
from pipeline.jobs import TrainJob, train_job
from pipeline.moe_jobs import joint_tasks, moe_spec, with_settings
from pipeline.strategies import ADDED, LWF, ROUTER, Mode

Picks = Sequence[Sequence[float]]  # [L][E]: the share of a data set's choices that each expert gets


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """One job of the stage: a task, the mode by which it is learned, and a learning rate."""

    job: TrainJob
    mode: str
    task: str
    lr: float


@dataclass(frozen=True, kw_only=True)
class Base:
    """What is adapted: a trained network's spec, the numbers of its experts by layer, and the job that trained it."""

    spec: ModelSpec
    experts: tuple[tuple[int, ...], ...]
    job: str


def base_of(config: Config, manifests: Mapping[str, DatasetManifest], job: str) -> Base:
    """Map the job that trained the network with experts to the base."""
    spec = moe_spec(config, manifests, joint_tasks(config))
    layers = MoeModel(replace(spec, backbone=replace(spec.backbone, pretrained=False))).layers
    return Base(spec=spec, experts=(tuple(range(config.moe.experts)),) * len(layers), job=job)


def first_jobs(config: Config, manifests: Mapping[str, DatasetManifest], base: Base) -> list[Adaptation]:
    """The modes that need not know which experts a new router uses, for every task and learning rate, and ADDED.

    ROUTER is among them where another mode asks for its use of the experts.
    """
    modes = {name: config.adapt.mode(name) for name in config.adapt.modes}
    if any(mode.needs_usage for mode in modes.values()):
        modes = {ROUTER: config.adapt.mode(ROUTER)} | modes
    return [
        _adaptation(config, manifests, base, task, name, adapted_route(config, base, task, mode), lr)
        for task in config.adapt.tasks
        for name, mode in modes.items()
        if not mode.needs_usage
        for lr in config.adapt.lrs
    ]


def later_jobs(
    config: Config,
    manifests: Mapping[str, DatasetManifest],
    base: Base,
    routers: Mapping[str, str],
    picks: Mapping[str, Picks],
) -> list[Adaptation]:
    """The modes that choose experts by their use; those that remove some start from the job of the new router."""
    return [
        _adaptation(
            config,
            manifests,
            base,
            task,
            name,
            adapted_route(config, base, task, mode, picks[task]),
            lr,
            routers[task] if mode.prunes else "",
        )
        for task in config.adapt.tasks
        for name in config.adapt.modes
        if (mode := config.adapt.mode(name)).needs_usage
        for lr in config.adapt.lrs
    ]


def added_jobs(config: Config, manifests: Mapping[str, DatasetManifest], base: Base) -> list[Adaptation]:
    """Continual learning: new routers and `adapt.added` new experts a layer for each task (Sec. 3.4)."""
    return [
        _adaptation(config, manifests, base, task, ADDED, _with_new(config, base, task), lr)
        for task in config.adapt.tasks
        for lr in config.adapt.lrs
    ]


def lwf_jobs(
    config: Config, manifests: Mapping[str, DatasetManifest], learned: Sequence[str], before: str
) -> list[Adaptation]:
    """Learning without Forgetting: the whole network learns the task after those `learned`, from the job `before`."""
    task = config.adapt.tasks[len(learned)]
    names = [*joint_tasks(config), *learned, task]
    spec = moe_spec(config, manifests, names)
    by_name = {item.name: item for item in spec.tasks}
    old = tuple(dict.fromkeys(by_name[name].dataset for name in names[:-1]))
    spec = replace(spec, strategy="lwf", tasks=tuple(by_name[name] for name in names))
    spec = with_settings(spec, old=old, temperature=config.adapt.temperature, upcycled=False)
    return [
        Adaptation(
            job=train_job(
                config,
                manifests,
                spec,
                name=f"{task}-{LWF}-lr{lr:g}",
                seed=config.seed,
                start={"network": before},
                train=_schedule(config, lr),
                lam=config.adapt.lwf,
                on=[by_name[task].dataset],
            ),
            mode=LWF,
            task=task,
            lr=lr,
        )
        for lr in config.adapt.lrs
    ]


def adapted_route(config: Config, base: Base, task: str, mode: Mode, picks: Picks | None = None) -> Route:
    """Map a mode and, where it asks for it, a router's use of the experts to what is left of them and which learn."""
    top_k, kept, own = mode.top_k or config.moe.top_k, [], []
    for layer, numbers in enumerate(base.experts):
        use = dict(zip(numbers, picks[layer], strict=True)) if picks else dict.fromkeys(numbers, 0.0)
        ranked = sorted(numbers, key=lambda number: (-use[number], number))
        left = _left(ranked, use, mode, top_k)
        kept.append(tuple(sorted(left)))
        own.append(tuple(sorted(_selected(left, mode, config.seed, layer))))
    return Route(
        dataset=config.tasks[task].dataset,
        top_k=top_k,
        experts=tuple(kept),
        own=tuple(own) if mode.learns == "own" else (),
    )


def _left(ranked: Sequence[int], use: Mapping[int, float], mode: Mode, top_k: int) -> list[int]:
    """The experts that stay, the most used first: at least as many as a token gets."""
    count = ceil(len(ranked) * (1 - mode.prune) - 1e-9)
    over = sum(use[number] >= mode.threshold for number in ranked) if mode.threshold else count
    return list(ranked[: max(top_k, min(count, over))])


def _selected(left: Sequence[int], mode: Mode, seed: int, layer: int) -> list[int]:
    """The experts that learn, of those that stay."""
    if mode.select == "random":
        seeded = torch.Generator().manual_seed(seed * 1009 + layer)
        order = torch.randperm(len(left), generator=seeded, device="cpu").tolist()
        return [sorted(left)[place] for place in order[: mode.experts]]
    return list(left[: mode.experts] if mode.select == "most" else left[max(0, len(left) - mode.experts) :])


def _with_new(config: Config, base: Base, task: str) -> Route:
    new = [tuple(range(len(numbers), len(numbers) + config.adapt.added)) for numbers in base.experts]
    return Route(
        dataset=config.tasks[task].dataset,
        top_k=config.moe.top_k,
        experts=tuple((*numbers, *more) for numbers, more in zip(base.experts, new, strict=True)),
        own=tuple(new),
    )


def _adaptation(
    config: Config,
    manifests: Mapping[str, DatasetManifest],
    base: Base,
    task: str,
    name: str,
    route: Route,
    lr: float,
    router: str = "",
) -> Adaptation:
    mode = config.adapt.mode(name) if name != ADDED else Mode()
    remembered = tuple(dict.fromkeys(item.dataset for item in base.spec.tasks if item.dataset != route.dataset))
    spec = with_settings(
        replace(moe_spec(config, manifests, [task]), routes=(route,)),
        learns=mode.learns,
        adapter=mode.adapter,
        remembered=remembered,
        upcycled=False,
    )
    job = train_job(
        config,
        manifests,
        spec,
        name=f"{task}-{name}-lr{lr:g}",
        seed=config.seed,
        start={"network": router} if router else {"moe": base.job},
        train=_schedule(config, lr),
        lam=config.adapt.lam,
    )
    return Adaptation(job=job, mode=name, task=task, lr=lr)


def _schedule(config: Config, lr: float) -> Train:
    own = config.adapt.model_dump(include={"epochs", "optimiser", "weight_decay"})
    return config.train.model_copy(update={**own, "lr": lr})
