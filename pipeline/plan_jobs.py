"""Configuration and data sets -> every job that the stages would train, before anything is known that they find out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from models.branch_tree import BranchTree, Partition
from models.tree_search import count_trees, enumerate_trees
from pipeline.adapt_jobs import added_jobs, first_jobs, later_jobs, lwf_jobs
from pipeline.adapt_jobs import base_of as adapt_base
from pipeline.adapting import base_of, baseline_jobs, matched_jobs, shared_job, taps_jobs
from pipeline.artifacts import DatasetManifest
from pipeline.budgets import Costs, requests
from pipeline.config import Config
from pipeline.jobs import TrainJob, model_spec, task_specs, train_job, tree_job
from pipeline.moe_jobs import finetune_trials, moe_trials
from pipeline.strategies import ADDED

Manifests = Mapping[str, DatasetManifest]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One job of a stage. `label` is what it has in common with others of its stage.

    `between` is how far the tree of a budget lies from the fully shared to the fully split one, of which `job` is the
    first: which tree it is, only affinities can say.
    """

    stage: str
    label: str
    job: TrainJob
    between: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Found:
    """What `pretrain` said of each task's network, and the tree that was last chosen for each budget, by its name."""

    single: Mapping[str, Mapping[str, Any]]
    trees: Mapping[str, Sequence[Partition]] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        return all(row["job"] for row in self.single.values())


def planned_jobs(
    config: Config, manifests: Manifests, costs: Mapping[str, Costs], found: Found | None = None
) -> list[Planned]:
    """Map a study to its jobs, stage by stage; `costs` of blocks and heads by unit, as for `pipeline.budgets`.

    With what was `found` the jobs are the stages' own, where that alone decides them.
    """
    found = found or Found(single=untrained(config))
    return [
        *single_jobs(config, manifests),
        *_branched(config, manifests, costs, found),
        *(_taps(config, manifests, found) if config.taps.lams else ()),
        *(_moe(config, manifests, found) if config.moe.lams else ()),
        *(_adapt(config, manifests, found) if config.moe.lams and config.adapt.tasks else ()),
    ]


def untrained(config: Config) -> dict[str, dict]:
    """What `pretrain` would say of each task's network, as far as jobs ask for it."""
    return {name: {"val": 1.0, "job": ""} for name in config.tasks}


def single_jobs(config: Config, manifests: Manifests) -> Iterator[Planned]:
    """The jobs of `pretrain`, which wait for nothing."""
    alone = ((0,),) * config.backbone.locations
    for task in task_specs(config, manifests):
        spec = model_spec(config, manifests, [task], alone)
        job = train_job(config, manifests, spec, name=task.name, seed=config.seed)
        yield Planned(stage="pretrain", label="single-task networks", job=job)


def _branched(config: Config, manifests: Manifests, costs: Mapping[str, Costs], found: Found) -> Iterator[Planned]:
    count, locations = len(config.tasks), config.backbone.locations
    shared, split = BranchTree.shared(count, locations), BranchTree.split(count, locations)
    ends = {"fully shared tree": shared, "fully split tree": split}
    others = list(enumerate_trees(count, locations)) if config.branched.exhaustive else []
    if config.trees.share_first:
        others = [tree for tree in others if tree.branches[0] == 1]
    trees = [*ends.items(), *(("all other trees", tree) for tree in others if tree not in ends.values())]

    def job(tree: BranchTree, seed: int) -> TrainJob:
        return tree_job(config, manifests, tree.groups, found.single, name="tree", seed=seed)

    for seed in config.branched.seeds:
        for label, tree in trees:
            yield Planned(stage="branched", label=label, job=job(tree, seed))
        for request in [] if others else requests(config.trees, costs):
            far = min(_between(limit, costs[unit], shared, split) for unit, limit in request.limits.items())
            groups = found.trees.get(request.name)
            tree, far = (BranchTree(groups), 0.0) if groups else (shared, far)
            yield Planned(stage="branched", label="trees within budgets", job=job(tree, seed), between=far)


def _between(limit: float, costs: Costs, shared: BranchTree, split: BranchTree) -> float:
    least, most = shared.budget(*costs), split.budget(*costs)
    return min(1.0, (limit - least) / (most - least)) if most > least else 0.0


def _taps(config: Config, manifests: Manifests, found: Found) -> Iterator[Planned]:
    base = base_of(config, manifests)
    if found.known and base.kind != "pretrained":
        shared = shared_job(config, manifests, found.single).key
        base = replace(base, job=shared if base.kind == "shared" else found.single[config.taps.base]["job"])
    weights = dict.fromkeys(config.tasks, 0)
    for item in (
        *taps_jobs(config, manifests, base, found.single),
        *baseline_jobs(config, manifests, base),
        *matched_jobs(config, manifests, base, weights),
    ):
        label = "TAPS" if item.method == "taps" else item.method.replace("_", " ")
        label += " before halving" * (item.method == "taps" and bool(config.taps.halving))
        yield Planned(stage="taps", label=label, job=item.job)


def _moe(config: Config, manifests: Manifests, found: Found) -> Iterator[Planned]:
    labels = {"moe": "with experts", "dense": "without experts", "finetune": "fine-tuned"}
    trials = moe_trials(config, manifests, found.single), finetune_trials(config, manifests, found.single)
    for trial in (*trials[0], *trials[1]):
        yield Planned(stage="moe", label=labels[trial.method], job=trial.job)


def _adapt(config: Config, manifests: Manifests, found: Found) -> Iterator[Planned]:
    one = found.known and len(config.moe.lams) == 1  # of several, only training can say which
    key = moe_trials(config, manifests, found.single)[0].job.key if one else ""
    with torch.device("meta"):
        base = adapt_base(config, manifests, key)
    even = {task: [[1.0] * len(numbers) for numbers in base.experts] for task in config.adapt.tasks}
    routers = dict.fromkeys(config.adapt.tasks, "router")
    for item in (
        *first_jobs(config, manifests, base),
        *later_jobs(config, manifests, base, routers, even),
        *added_jobs(config, manifests, base),
    ):
        label = "one after another, own experts" if item.mode == ADDED else "modes"
        yield Planned(stage="adapt", label=label, job=item.job)
    for place in range(len(config.adapt.tasks) if config.adapt.lwf else 0):
        for item in lwf_jobs(config, manifests, config.adapt.tasks[:place], ""):
            yield Planned(stage="adapt", label="one after another, LwF", job=item.job)


def trees_in_all(config: Config) -> int:
    """How many trees the study's tasks could share a backbone in."""
    return count_trees(len(config.tasks), config.backbone.locations - config.trees.share_first)


def search_method(config: Config, few: int, most_tasks: int) -> str:
    """What `trees.method: auto` would do, as far as the numbers alone tell."""
    settings, tasks = config.trees, len(config.tasks)
    if settings.method != "auto":
        return settings.method
    if trees_in_all(config) <= few and tasks <= most_tasks:
        return "exhaustive"
    return f"exact where that is done within {settings.time_limit_s:g} s, else beam"


def stages_of(jobs: Sequence[Planned]) -> dict[str, dict[str, list[Planned]]]:
    """Jobs by stage and label, in their order."""
    found: dict[str, dict[str, list[Planned]]] = {}
    for item in jobs:
        found.setdefault(item.stage, {}).setdefault(item.label, []).append(item)
    return found
