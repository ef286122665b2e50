"""Task affinities -> the Pareto front of branch trees, and the best tree for each budget.    python -m stages.trees

Leaves artifacts/trees/trees.parquet (the front), chosen.json (fully shared, fully split, one tree per budget) and
trees.txt, the chosen trees as text.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from models.branch_tree import BranchTree
from models.search_problem import Limit, Point, SearchResult
from models.sharing.branched import block_costs
from models.tree_search import best_within, count_trees, pareto_front
from pipeline.artifacts import ARTIFACTS, TREES, read_manifests, write_json, write_table, writing
from pipeline.budgets import Costs, Request, requests
from pipeline.jobs import model_spec, task_specs
from pipeline.plan_text import count_text
from pipeline.result_lines import tree_lines
from pipeline.results import read_affinity
from stages.session import Session, session, start


def main() -> None:
    with session("trees") as at:
        settings, manifests = at.config.trees, read_manifests()
        tasks, locations = task_specs(at.config, manifests), at.config.backbone.locations
        names = [task.name for task in tasks]
        shared, split = BranchTree.shared(len(tasks), locations), BranchTree.split(len(tasks), locations)
        spec = model_spec(at.config, manifests, tasks, shared.groups)
        costs: dict[str, Costs] = {unit: block_costs(spec, unit) for unit in ("params", "flops")}
        asked = requests(settings, costs)
        affinities = read_affinity(ARTIFACTS / "affinity", names)
        search = partial(
            pareto_front,
            affinities,
            *costs[settings.unit],
            method=settings.method,
            share_first=settings.share_first,
            time_limit_s=settings.time_limit_s,
        )
        found = search()
        count = count_trees(len(names), locations - settings.share_first)
        at.result(
            f"{count_text(count)} trees of {len(names)} tasks at {locations} locations: {found.method} search,"
            f" {_proof(found)}, {len(found.points)} on the front"
        )

        def row(tree: BranchTree) -> dict[str, Any]:
            sizes = {unit: int(tree.budget(*cost)) for unit, cost in costs.items()}
            return {"cost": tree.cost(affinities), "budget": sizes[settings.unit], **sizes}

        def end(name: str, tree: BranchTree) -> dict[str, Any]:
            """Of its size there is no other tree."""
            proof = {"lower_bound": tree.cost(affinities), "method": found.method, "optimal": True}
            return {"name": name, "request": "", "groups": tree.groups, **row(tree), **proof}

        chosen = [end("shared", shared)]
        for request in asked:
            point, proof = _best(request, found, settings.unit, costs, search)
            chosen.append({"name": request.name, "request": request.text, "groups": point.tree.groups})
            chosen[-1] |= {**row(point.tree), **proof}
            if point.tree == split:
                at.say(f"budget {request.text} is enough for the fully split tree; that is what it gives")
        chosen.append(end("split", split))
        blocks = {unit: by_location for unit, (by_location, _) in costs.items()}
        _write(at, names, chosen, found, row, {"block_costs": blocks, "trees_in_all": count})


def _best(
    request: Request, found: SearchResult, unit: str, costs: Mapping[str, Costs], search: Callable[..., SearchResult]
) -> tuple[Point, dict[str, Any]]:
    """The least-cost tree within a request, and how far that is proved; another unit needs its own search."""
    others = [
        Limit(block_costs=costs[other][0], head_costs=costs[other][1], most=most)
        for other, most in request.limits.items()
        if other != unit
    ]
    result = search(budget=request.limits[unit], limits=others) if others else found
    point = best_within(result, request.limits[unit])
    bound = result.lower_bounds[result.points.index(point)]
    return point, {"lower_bound": bound, "method": result.method, "optimal": result.optimal}


def _proof(result: SearchResult) -> str:
    if result.optimal:
        return "proved optimal"
    pairs = zip(result.points, result.lower_bounds, strict=True)
    gap = max((point.cost - bound) / point.cost for point, bound in pairs if point.cost)
    return f"not proved: the lower bound is up to {gap:.1%} below the cost"


def _write(at: Session, names: list[str], chosen: list[dict], found: SearchResult, row: Any, sizes: dict) -> None:
    heads = [
        f"{item['name']}  {item['params']:,} parameters  {item['flops'] / 2e6:,.1f} M multiply-adds"
        f"  cost {item['cost']:.4f} (at least {item['lower_bound']:.4f})"
        for item in chosen
    ]
    drawn = [f"{head}\n{BranchTree(item['groups']).text(names)}" for head, item in zip(heads, chosen, strict=True)]
    front = zip(found.points, found.lower_bounds, strict=True)
    proof = {"method": found.method, "optimal": found.optimal}
    settings = at.config.trees
    about = {"unit": settings.unit, "share_first": settings.share_first, **sizes, **proof}
    with writing("trees") as folder:
        write_table(
            folder / "trees.parquet",
            [
                {"groups": json.dumps(point.tree.groups), "lower_bound": bound, **row(point.tree), **proof}
                for point, bound in front
            ],
            TREES,
        )
        write_json(folder / "chosen.json", {"tasks": names, "trees": chosen, **about})
        (folder / "trees.txt").write_text("\n\n".join(drawn) + "\n")
    for name in ("trees.txt", "chosen.json"):
        at.run.artifact(ARTIFACTS / "trees" / name)
    asked = [(item["request"], BranchTree(item["groups"]), item) for item in chosen if item["request"]]
    if asked:
        at.result(tree_lines(asked, names))
    at.result("drawn in artifacts/trees/trees.txt")


if __name__ == "__main__":
    start(main, logged=True)
