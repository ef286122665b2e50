"""What seeds gave -> means, deviations, what is a difference and what noise; as JSON and as Markdown.

A difference counts where it is larger than the standard deviation of a difference of two such networks, the root of the
sum of both variances over seeds.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import mean, stdev
from typing import Any

from scipy.stats import spearmanr

Row = Mapping[str, Any]
SHARED = "all shared"  # is within every budget
RIVALS = ("tree", "TAPS", "experts")
TREES = (SHARED, "tree", "opposite tree")


def summary(seeds: Sequence[Row]) -> dict[str, Any]:
    """Map the seeds of one set to its networks, budget by budget the ranking, and how RSA cost and gain are related."""
    groups: dict[str, list[Row]] = {}
    for seed in seeds:
        for row in seed["networks"]:
            groups.setdefault(row["name"], []).append(row)
    networks = {name: _network(rows) for name, rows in groups.items()}
    budgets = dict.fromkeys(row["budget"] for row in networks.values() if row["budget"])
    return {
        "seeds": [seed["seed"] for seed in seeds],
        "tasks": seeds[0]["tasks"],
        "counts": seeds[0]["counts"],
        "backbone": seeds[0]["backbone"],
        "hours": sum(seed["seconds"] for seed in seeds) / 3600,
        "networks": networks,
        "budgets": {budget: ranking(networks, budget) for budget in budgets},
        "rsa": rsa_and_gain(seeds),
    }


def _network(rows: Sequence[Row]) -> dict[str, Any]:
    """One network over its seeds."""
    tasks = rows[0]["delta"]
    about = {key: rows[0].get(key) for key in ("strategy", "budget", "experts")}
    return {
        **about,
        "seeds": len(rows),
        "params": mean(row["params"] for row in rows),
        "flops": mean(row["flops"] for row in rows),
        "further": mean(row["further"] for row in rows),
        "epochs": [row["epochs"] for row in rows],
        "test": {task: spread([row["test"][task] for row in rows]) for task in tasks},
        "delta": {task: spread([row["delta"][task] for row in rows]) for task in tasks},
        "delta_mtl": spread([row["delta_mtl"] for row in rows]),
    }


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and standard deviation (of the sample); of one value there is none."""
    return {"mean": mean(values), "std": stdev(values) if len(values) > 1 else None}


def ranking(networks: Mapping[str, Row], budget: str) -> list[dict[str, Any]]:
    """What keeps to a budget by mean Δ_MTL, each with how far it lies behind the first and whether that is noise."""
    rivals = [row for row in networks.values() if row["budget"] == budget and row["strategy"] in RIVALS]
    rivals.append(networks[SHARED])
    rivals.sort(key=lambda row: -row["delta_mtl"]["mean"])
    first = rivals[0]["delta_mtl"]
    found = []
    for row in rivals:
        behind, noise = first["mean"] - row["delta_mtl"]["mean"], _noise(first, row["delta_mtl"])
        clear = None if noise is None else behind > noise
        found.append({"strategy": row["strategy"], "behind": behind, "noise": noise, "clear": clear})
    return found


def _noise(one: Row, other: Row) -> float | None:
    return None if one["std"] is None or other["std"] is None else sqrt(one["std"] ** 2 + other["std"] ** 2)


def rsa_and_gain(seeds: Sequence[Row]) -> dict[str, Any]:
    """Spearman's correlation of trees' cost and Δ_MTL over all trees and seeds; and trees against their opposites.

    A tree and its opposite have one size, so `wins` of `pairs` says whether the cost tells more than the size does.
    """
    points = [row for seed in seeds for row in seed["networks"] if row["strategy"] in TREES]
    varied = len({row["cost"] for row in points}) > 2
    costs, gains = [row["cost"] for row in points], [row["delta_mtl"] for row in points]
    rho, p_value = map(float, spearmanr(costs, gains)) if varied else (None, None)
    gaps = [
        tree["delta_mtl"] - other["delta_mtl"]
        for seed in seeds
        for tree in seed["networks"]
        for other in seed["networks"]
        if tree["strategy"] == "tree" and other["strategy"] == "opposite tree" and tree["budget"] == other["budget"]
    ]
    return {
        "trees": len(points),
        "spearman": rho,
        "p_value": p_value,
        "pairs": len(gaps),
        "wins": sum(gap > 0 for gap in gaps),
        "gap": spread(gaps) if gaps else None,
    }


def markdown(sets: Mapping[str, Row]) -> str:
    """All sets as text: a table each, the ranking of each budget in sentences, RSA against what was measured."""
    return "\n\n".join(_section(name, found) for name, found in sets.items()) + "\n"


def _section(name: str, found: Row) -> str:
    tasks = list(found["tasks"])
    images = ", ".join(f"{data} {counts['train']:,}" for data, counts in found["counts"].items())
    head = f"**{name}**: {found['backbone']}, training images: {images}; seeds {', '.join(map(str, found['seeds']))}"
    titles = ["network", "parameters", "training TFLOP", "with what it needed", *tasks, "Δ_MTL"]
    lines = [_line(titles), _line(["---"] * len(titles))]
    constants = [f"{found['tasks'][task]['constant']:.3f} {found['tasks'][task]['metric']}" for task in tasks]
    lines.append(_line(["best constant", "", "", "", *constants, ""]))
    shared = found["networks"][SHARED]["params"]
    for network, row in found["networks"].items():
        size = f"{row['params'] / 1e6:.2f} M ({row['params'] / shared:.2f}x)"
        compute = [f"{flops / 1e12:.2f}" for flops in (row["flops"], row["flops"] + row["further"])]
        gains = [_gain(row["delta"][task]) for task in tasks] + [_gain(row["delta_mtl"])]
        if network == "single-task":
            gains = [f"{row['test'][task]['mean']:.3f} {found['tasks'][task]['metric']}" for task in tasks] + ["0"]
        lines.append(_line([network, size, *compute, *gains]))
    ranks = [_rank_text(budget, ranks) for budget, ranks in found["budgets"].items()]
    return "\n".join([head, "", *lines, "", *ranks, _rsa_text(found["rsa"]), f"Trained in {found['hours']:.2f} hours."])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _gain(value: Row) -> str:
    return f"{value['mean']:+.1f}" + ("" if value["std"] is None else f" ± {value['std']:.1f}")


def _rank_text(budget: str, ranks: Sequence[Row]) -> str:
    first, *others = ranks
    parts = [
        f"{row['strategy']} {row['behind']:.1f} points behind"
        + (
            ""
            if row["noise"] is None
            else f" ({'beyond' if row['clear'] else 'inside'} one deviation, {row['noise']:.1f})"
        )
        for row in others
    ]
    return f"At {budget}: {first['strategy']} first; {', '.join(parts)}."


def _rsa_text(rsa: Row) -> str:
    order = (
        "too few trees to compare cost and Δ_MTL"
        if rsa["spearman"] is None
        else (
            f"Spearman of RSA cost and Δ_MTL of {rsa['trees']} trees {rsa['spearman']:+.2f} (p = {rsa['p_value']:.3f})"
        )
    )
    if not rsa["pairs"]:
        return f"{order}."
    return (
        f"{order}; of {rsa['pairs']} trees {rsa['wins']} did better than their opposite of the same size,"
        f" by {_gain(rsa['gap'])} points."
    )
