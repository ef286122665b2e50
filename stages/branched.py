"""Train the fully shared tree, the fully split one, and one tree per budget.    python -m stages.branched

With `branched.exhaustive` also every other tree. Leaves artifacts/branched/<tree>-s<seed>/ (a bundle), trials.parquet
(every metric of every epoch), metrics.json with Δ_MTL against the single-task networks of `pretrain`, and
all_trees.json: cost and Δ_MTL of every tree that was trained, and how the two are related.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from models.branch_tree import BranchTree, Partition
from models.tree_search import enumerate_trees
from pipeline.artifacts import ARTIFACTS, TRIALS, read_json, read_manifests, write_json, write_table, writing
from pipeline.jobs import tree_job
from pipeline.result_lines import tree_lines
from pipeline.results import copy_result, cost_against_delta, delta_of, read_affinity, trials
from stages.session import session, start
from stages.training import train_jobs

Result = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A tree to train; `request` is the budget that it was chosen for."""

    name: str
    request: str
    groups: tuple[Partition, ...]
    cost: float


def main() -> None:
    with session("branched") as at:
        manifests, single = read_manifests(), read_json(ARTIFACTS / "pretrain" / "metrics.json")
        plan = read_json(ARTIFACTS / "trees" / "chosen.json")
        chosen = [_chosen(item) for item in plan["trees"]]
        trees = [*chosen, *(_others(plan) if at.config.branched.exhaustive else [])]
        jobs = {
            tree.name: [
                tree_job(at.config, manifests, tree.groups, single, name=tree.name, seed=seed)
                for seed in at.config.branched.seeds
            ]
            for tree in trees
        }
        costs = {job.name: tree.cost for tree in trees for job in jobs[tree.name]}
        results = train_jobs(
            at,
            [job for group in jobs.values() for job in group],
            {job.name: _tags(tree, plan["tasks"]) for tree in trees for job in jobs[tree.name]},
            lambda job, result: {"final/delta_mtl": delta_of(result, single), "tree/cost": costs[job.name]},
        )
        runs = {name: [results[job.name] for job in group] for name, group in jobs.items()}
        metrics = {tree.name: summary(tree, runs[tree.name], single) for tree in chosen}
        lines = [(tree.request or tree.name, BranchTree(tree.groups), metrics[tree.name]) for tree in chosen]
        at.result(tree_lines(lines, plan["tasks"]))
        distinct = {tree.groups: tree for tree in reversed(trees)}
        every = [_point(tree, runs[tree.name], single) for tree in reversed(distinct.values())]
        related = cost_against_delta(every)
        at.run.log({f"cost_against_delta/{name}": value for name, value in related.items() if value is not None}, 0)
        with writing("branched") as folder:
            kept = [job for tree in chosen for job in jobs[tree.name]]
            for job in kept:
                copy_result(job, at.machine, folder / job.name, manifests, single)
            write_table(folder / "trials.parquet", [row for job in kept for row in trials(job, at.machine)], TRIALS)
            write_json(folder / "metrics.json", metrics)
            about = {"exhaustive": at.config.branched.exhaustive, "trees_in_all": plan["trees_in_all"]}
            write_json(folder / "all_trees.json", {**about, **related, "trees": every})


def _tags(tree: Tree, tasks: Sequence[str]) -> dict[str, str]:
    drawing = f"```\n{BranchTree(tree.groups).text(tasks)}\n```"  # the tracking page shows it as the run's description
    return {"strategy": "branched", "budget": tree.request or tree.name, "mlflow.note.content": drawing}


def _chosen(item: Mapping[str, Any]) -> Tree:
    groups = tuple(tuple(row) for row in item["groups"])
    return Tree(name=item["name"], request=item["request"], groups=groups, cost=item["cost"])


def _others(plan: Mapping[str, Any]) -> list[Tree]:
    """Every tree that was not chosen, in canonical order."""
    groups = plan["trees"][0]["groups"]
    affinities = read_affinity(ARTIFACTS / "affinity", plan["tasks"])
    taken = {_chosen(item).groups for item in plan["trees"]}
    every = enumerate_trees(len(groups[0]), len(groups))
    allowed = [tree for tree in every if tree.branches[0] == 1 or not plan["share_first"]]
    return [
        Tree(name=f"tree-{number:03d}", request="", groups=tree.groups, cost=tree.cost(affinities))
        for number, tree in enumerate(allowed, 1)
        if tree.groups not in taken
    ]


def summary(tree: Tree, runs: Sequence[Result], single: Mapping[str, Any]) -> dict[str, Any]:
    """One tree's results over its seeds, with Δ_MTL against the single-task networks on test and on validation."""
    deltas = [delta_of(run, single) for run in runs]
    return {
        "cost": tree.cost,
        "delta_mtl": mean(deltas),
        "delta_mtl_std": stdev(deltas) if len(deltas) > 1 else None,
        "delta_mtl_val": mean(delta_of(run, single, "val") for run in runs),
        "seeds": len(runs),
        "params": runs[0]["params"],
        "flops": runs[0]["flops"],
        "seconds": sum(run["seconds"] for run in runs),
        "jobs": [run["key"] for run in runs],
        "test": {name: mean(run["test"][name] for run in runs) for name in runs[0]["test"]},
    }


def _point(tree: Tree, runs: Sequence[Result], single: Mapping[str, Any]) -> dict[str, Any]:
    """One tree as a dot of the paper's Fig. 5."""
    return {
        "name": tree.name,
        "groups": tree.groups,
        "cost": tree.cost,
        "params": runs[0]["params"],
        "flops": runs[0]["flops"],
        "delta_mtl": [delta_of(run, single) for run in runs],
        "delta_mtl_val": [delta_of(run, single, "val") for run in runs],
        "jobs": [run["key"] for run in runs],
    }


if __name__ == "__main__":
    start(main, logged=True)
