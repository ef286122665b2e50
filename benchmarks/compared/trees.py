"""Branched trees for a comparison: RSA on the single-task networks, the search, and for each tree its opposite.

The opposite of a tree has as many branches at every location, so the same size, and the highest RSA cost of all those.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from benchmarks.compared.compute import epochs_for
from benchmarks.compared.study import Row, Study, for_epochs, network_row
from models.branch_tree import BranchTree
from models.rsa import affinity
from models.tree_search import best_within, enumerate_trees, pareto_front
from pipeline.artifacts import shards
from pipeline.budgets import requests
from pipeline.jobs import TrainJob, tree_job
from pipeline.loading import Split
from pipeline.plan_costs import unit_costs
from pipeline.probe import probe_images, task_rdms
from pipeline.trained import own_device, trained_network


def tree_rows(study: Study, single: Mapping[str, Row], target: float) -> list[dict]:
    """The shared tree, and within each budget the tree of least cost and its opposite, trained at a compute."""
    config, costs = study.config, unit_costs(study.shared)
    affinities, rsa_flops = _affinities(study, single)
    found = pareto_front(
        affinities,
        *costs["params"],
        method=config.trees.method,
        share_first=config.trees.share_first,
        time_limit_s=config.trees.time_limit_s,
    )
    prepared = sum(row["train_flops"] for row in single.values()) + rsa_flops
    rows = [_row(study, single, target, "all shared", "", BranchTree.shared(*_shape(study)), affinities, 0.0)]
    for request in requests(config.trees, costs):
        tree = best_within(found, request.limits["params"]).tree
        rows.append(_row(study, single, target, "tree", request.text, tree, affinities, prepared))
        opposite = opposite_of(tree, affinities)
        if opposite != tree:
            rows.append(_row(study, single, target, "opposite tree", request.text, opposite, affinities, prepared))
    return rows


def opposite_of(tree: BranchTree, affinities: Tensor) -> BranchTree:
    """The tree of highest cost among those with as many branches at every location; itself where it is alone."""
    alike = (other for other in enumerate_trees(*_size(tree)) if other.branches == tree.branches)
    return max(alike, key=lambda other: (other.cost(affinities), other != tree))


def _size(tree: BranchTree) -> tuple[int, int]:
    return tree.num_tasks, tree.num_locations


def _shape(study: Study) -> tuple[int, int]:
    return len(study.config.tasks), study.config.backbone.locations


def _row(
    study: Study,
    single: Mapping[str, Row],
    target: float,
    strategy: str,
    budget: str,
    tree: BranchTree,
    affinities: Tensor,
    further: float,
) -> dict:
    def job(epochs: int) -> TrainJob:
        config = for_epochs(study.config, epochs)
        name = f"{strategy} {budget}".strip().replace(" ", "-")
        return tree_job(config, study.manifests, tree.groups, single, name=name, seed=config.seed)

    epochs = epochs_for(target, lambda number: study.flops([job(number)]))
    (result,) = study.trained([job(epochs)])
    return network_row(
        f"{strategy} {budget}".strip(),
        strategy,
        budget,
        result,
        single,
        params=result["params"],
        flops=study.flops([job(epochs)]),
        further=further,
        epochs={"tree": epochs},
        cost=tree.cost(affinities),
        groups=tree.groups,
    )


def _affinities(study: Study, single: Mapping[str, Row]) -> tuple[Tensor, float]:
    """RSA affinities [D, T, T] of the single-task networks, and the FLOPs of their features on the probe images."""
    config = study.config
    names = dict.fromkeys(task.dataset for task in config.tasks.values())
    images = probe_images([_held_out(study, name) for name in names], config.affinity.images)
    device, rdms = own_device(study.machine), []
    with TemporaryDirectory() as scratch:
        for task, row in single.items():
            network = trained_network(row["job"], study.machine)
            rdms.append(task_rdms(network, task, images, config.affinity, device, Path(scratch)))
    blocks: Sequence[int] = next(iter(study.costs.values())).blocks
    return affinity(torch.stack(rdms)), float(len(single) * len(images) * sum(blocks))


def _held_out(study: Study, name: str) -> Split:
    paths = shards(name, "val", study.prepared)
    return Split(dataset=name, paths=paths, size=study.manifests[name].size, columns={})
