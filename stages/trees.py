"""Task affinities -> the Pareto front of branch trees, and the best tree for each budget.    python -m stages.trees

Leaves artifacts/trees/trees.parquet (the front), chosen.json (fully shared, fully split, one tree per budget) and
trees.txt, the chosen trees as text.
"""

import json

import torch

from models.branch_tree import BranchTree
from models.sharing.branched import block_costs
from models.tree_search import best_within, count_trees, pareto_front
from pipeline.artifacts import ARTIFACTS, TREES, read_manifests, read_table, write_json, write_table, writing
from pipeline.budgets import budget_limits
from pipeline.jobs import model_spec, task_specs
from stages.session import session, start


def main() -> None:
    with session("trees") as at:
        settings, manifests = at.config.trees, read_manifests()
        tasks, locations = task_specs(at.config, manifests), at.config.backbone.locations
        names = [task.name for task in tasks]
        shared, split = BranchTree.shared(len(tasks), locations), BranchTree.split(len(tasks), locations)
        spec = model_spec(at.config, manifests, tasks, shared.groups)
        costs = {unit: block_costs(spec, unit) for unit in ("params", "flops")}
        limits = budget_limits(settings, *costs[settings.unit])
        affinities = _affinities(names, locations)
        found = pareto_front(
            affinities, *costs[settings.unit], method=settings.method, share_first=settings.share_first
        )
        at.say(
            f"trees: {len(names)} tasks, {locations} locations, {count_trees(len(names), locations):,} trees;"
            f" {found.method}, {'proved optimal' if found.optimal else 'not proved'}, {len(found.points)} on the front"
        )

        def row(tree: BranchTree) -> dict:
            sizes = {unit: int(tree.budget(*cost)) for unit, cost in costs.items()}
            proof = {"method": found.method, "optimal": found.optimal}
            return {"cost": tree.cost(affinities), "budget": sizes[settings.unit], **sizes, **proof}

        chosen = [{"name": "shared", "request": "", "groups": shared.groups, **row(shared)}]
        for request, limit in limits.items():
            tree = best_within(found, limit)[0]
            if tree == split:
                at.say(f"trees: budget {request} is enough for the fully split tree; that is what it gives")
            chosen.append({"name": f"budget-{request}", "request": request, "groups": tree.groups, **row(tree)})
        chosen.append({"name": "split", "request": "", "groups": split.groups, **row(split)})
        text = "\n\n".join(
            f"{item['name']}  {item['params']:,} parameters  {item['flops'] / 2e6:,.1f} M multiply-adds"
            f"  cost {item['cost']:.4f}\n{BranchTree(item['groups']).text(names)}"
            for item in chosen
        )
        with writing("trees") as folder:
            write_table(
                folder / "trees.parquet",
                [{"groups": json.dumps(p[0].groups), **row(p[0])} for p in found.points],
                TREES,
            )
            write_json(folder / "chosen.json", {"tasks": names, "unit": settings.unit, "trees": chosen})
            (folder / "trees.txt").write_text(text + "\n")
        at.say(text)


def _affinities(names: list[str], locations: int) -> torch.Tensor:
    values = torch.zeros(locations, len(names), len(names), dtype=torch.float64)
    for row in read_table(ARTIFACTS / "affinity" / "affinity.parquet"):
        values[row["location"] - 1, names.index(row["task_a"]), names.index(row["task_b"])] = row["value"]
    return values


if __name__ == "__main__":
    start(main)
