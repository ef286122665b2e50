"""A prepared study -> what its training will take, as `make repro` says it before the first network."""

from collections.abc import Iterable, Mapping

import torch

from models.spec import ModelSpec
from models.tree_search import enumerate_trees
from pipeline.artifacts import ARTIFACTS, DatasetManifest, read_json
from pipeline.budgets import Costs, requests
from pipeline.config import Config
from pipeline.machine import Machine
from pipeline.plan_costs import image_costs, job_flops, kept_bytes, measured_speed, shared_spec, unit_costs
from pipeline.plan_jobs import Found, Planned, planned_jobs, single_jobs, trees_in_all, untrained
from pipeline.plan_text import bytes_text, count_text, flops_text, time_text
from pipeline.storage import JobFolder

FEW = 50_000  # trees, which are looked through in half a second
SECONDS = 2.0

Manifests = Mapping[str, DatasetManifest]


def plan_line(config: Config, manifests: Manifests, machine: Machine) -> str:
    """Map a study to its trees, and to the networks that are still to be trained, with their time and room on disk."""
    with torch.random.fork_rng():  # what is timed draws weights
        spec = shared_spec(config, manifests)
        costs = unit_costs(spec)
        jobs = _distinct(planned_jobs(config, manifests, costs, _found(config, manifests, machine)))
        todo = [item for item in jobs if item.between or not _trained(item, machine)]
        networks = f"{len(jobs)} networks, {_trained_words(len(jobs) - len(todo), len(jobs))}"
        if todo:
            of_image = image_costs(spec, manifests)
            flops = sum(job_flops(item, manifests, of_image) or 0.0 for item in todo)
            time = "" if machine.clustered else _time_words(flops, config, spec, manifests, machine)
            room = bytes_text(kept_bytes(todo, costs, machine.checkpoints))
            rest = "the others: " if len(todo) < len(jobs) else ""
            networks += f"\n{rest}{flops_text(flops)}{time}, at most {room} of disk"
    return f"{_tree_words(config, costs)}\n{networks}"


def _trained_words(trained: int, count: int) -> str:
    if not trained:
        return "none of them trained yet"
    return "all trained before" if trained == count else f"{trained} of them trained before"


def _time_words(flops: float, config: Config, spec: ModelSpec, manifests: Manifests, machine: Machine) -> str:
    """How long that takes at the speed that is measured now."""
    speed = measured_speed(config, spec, manifests, machine, SECONDS)
    return f", about {time_text(flops / speed.flops)} by this machine's speed"


def _tree_words(config: Config, costs: Mapping[str, Costs]) -> str:
    """How many trees there are, and where they are few, how many of them each budget allows."""
    tasks, locations, total = len(config.tasks), config.backbone.locations, trees_in_all(config)
    words = f"{tasks} tasks, {locations} locations: {count_text(total)} trees"
    asked = requests(config.trees, costs)
    if total > FEW or not asked:
        return words
    trees = [
        tree for tree in enumerate_trees(tasks, locations) if not config.trees.share_first or tree.branches[0] == 1
    ]
    sizes = [{unit: tree.budget(*cost) for unit, cost in costs.items()} for tree in trees]

    def fitting(limits: Mapping[str, float]) -> int:
        return sum(all(size[unit] <= most for unit, most in limits.items()) for size in sizes)

    within = [f"{fitting(request.limits):,} within {request.text}" for request in asked]
    return f"{words}, {', '.join(within)}"


def _found(config: Config, manifests: Manifests, machine: Machine) -> Found:
    """What earlier runs of this study left; nothing where a single-task network is missing."""
    single = {}
    for item in single_jobs(config, manifests):
        result = JobFolder(machine.storage, item.job.key).read_result()
        if result is None:
            return Found(single=untrained(config))
        single[item.job.name] = {"val": result["val"][item.job.name], "job": item.job.key}
    path = ARTIFACTS / "trees" / "chosen.json"
    chosen = read_json(path) if path.exists() else {"tasks": [], "trees": []}
    fits = chosen["tasks"] == list(config.tasks)
    return Found(single=single, trees={tree["name"]: tree["groups"] for tree in chosen["trees"]} if fits else {})


def _distinct(jobs: Iterable[Planned]) -> list[Planned]:
    """A tree that two budgets ask for is one network; one that isn't known yet stands for itself."""
    return list({(item.job.key, item.between): item for item in jobs}.values())


def _trained(item: Planned, machine: Machine) -> bool:
    return JobFolder(machine.storage, item.job.key).read_result() is not None
