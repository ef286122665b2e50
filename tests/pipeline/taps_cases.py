"""Invented results of TAPS, as its stage leaves them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

LAMS = (0.0, 0.25, 0.5, 1.0)
OTHERS = {
    "fine_tuning": ("fine-tuning", 1.0),
    "feature_extractor": ("feature extractor", 0.0),
    "norm_only": ("normalisation only", 0.0013),
    "manual_freezing": ("manual freezing", 0.4),
    "lora": ("LoRA", 0.05),
    "piggyback": ("Piggyback", 0.031),
    "series_adapters": ("series adapters", 0.12),
    "parallel_adapters": ("parallel adapters", 0.11),
}


def taps_metrics(
    tasks: Sequence[str],
    *,
    layers: int = 25,
    metrics: Sequence[str] = ("accuracy",),
    networks: Sequence[str] = (),
    base: str = "",
    seed: int = 0,
) -> dict[str, Any]:
    """Results for tasks with metrics in turn; `networks` are all tasks of a study that TAPS and its base cover."""
    rng = np.random.default_rng(seed)
    gates = [
        {"name": f"layer{1 + 4 * i // layers}.{i}.conv{1 + i % 2}", "type": "Conv2d", "params": 100 * (i + 1)}
        | {"location": 1 + 4 * i // layers}
        for i in range(layers)
    ]
    metric = {task: metrics[index % len(metrics)] for index, task in enumerate(tasks)}
    runs = [run for task in tasks for run in _runs(rng, task, gates, metric[task] != "rmse")]
    by_name = {run["name"]: run for run in runs}
    chosen = {task: f"{task}-taps-lam{LAMS[1 + index % 2]:g}" for index, task in enumerate(tasks)}
    rows = [
        _row("taps", lam, f"TAPS λ={lam:g}", {task: by_name[f"{task}-taps-lam{lam:g}"] for task in tasks})
        for lam in LAMS
    ]
    rows.append(_row("taps", None, "TAPS, λ chosen", {task: by_name[name] for task, name in chosen.items()}))
    for method, (label, _) in OTHERS.items():
        rows.append(_row(method, None, label, {task: by_name[f"{task}-{method}"] for task in tasks}))
    return {
        "base": {"kind": "task" if base else "pretrained", "name": base, "job": f"{base} job", "params": 50_000},
        "joint": False,
        "threshold": 0.1,
        "layers": gates,
        "tasks": {
            task: {"metric": metric[task], "higher_is_better": metric[task] != "rmse", "chosen": chosen[task]}
            for task in tasks
        },
        "runs": runs,
        "methods": rows,
        "networks": [_network(row, networks, by_name) for row in rows[: len(LAMS) + 1] if networks],
    }


def _runs(rng: np.random.Generator, task: str, gates: Sequence[Mapping], rises: bool) -> list[dict[str, Any]]:
    """Scores grow with depth and fall with λ; the metric grows with the share of open gates, or falls."""
    height, found = 0.6 + 0.2 * rng.random(), []
    noise = 0.12 * rng.random(len(gates))
    for method, lam in [*(("taps", lam) for lam in LAMS), *((method, None) for method in OTHERS)]:
        scores = np.linspace(-0.05, 0.2, len(gates)) + noise - 0.13 * (lam or 0.0)
        active, sizes = scores >= 0.1, np.array([gate["params"] for gate in gates])
        share = float(active.mean())
        added = float((active * sizes).sum() / sizes.sum()) if lam is not None else OTHERS[method][1]
        value = height + 0.15 * added**0.3 + 0.01 * float(rng.random())
        name = f"{task}-{method}" + (f"-lam{lam:g}" if lam is not None else "")
        found.append(
            {"name": name, "method": method, "task": task, "lam": lam, "lr": 0.01, "seed": 0, "job": f"key{name}"}
            | {"epoch": 7, "val": value if rises else 1 - value, "test": value if rises else 1 - value}
            | {"scores": scores.tolist() if lam is not None else None}
            | {"active": active.tolist() if lam is not None else None}
            | {"layers_share": share if lam is not None else None, "params_share": added}
            | {"own_params": int(50_000 * added), "bytes": int(200_000 * added), "seconds": 12.3, "flops": 4000}
            | {"news": "what a later version adds"}
        )
    return found


def _row(method: str, lam: float | None, label: str, runs: Mapping[str, Mapping]) -> dict[str, Any]:
    test = {task: run["test"] for task, run in runs.items()}
    return {
        "method": method,
        "lam": lam,
        "label": label,
        "test": test,
        "val": {task: run["val"] for task, run in runs.items()},
        "mean": sum(test.values()) / len(test),
        "s_score": sum(1000 * max(0.0, value - 0.5) ** 2 for value in test.values()),
        "multiple": 1 + sum(run["params_share"] for run in runs.values()),
        "bytes": sum(run["bytes"] for run in runs.values()),
        "runs": {task: run["name"] for task, run in runs.items()},
    }


def _network(row: Mapping, tasks: Sequence[str], runs: Mapping[str, Mapping]) -> dict[str, Any]:
    """The network of one λ; a task that TAPS did not learn is the base's own."""
    mine = [runs[name] for name in row["runs"].values()]
    return {
        "name": "taps-chosen" if row["lam"] is None else f"taps-lam{row['lam']:g}",
        "label": row["label"],
        "params": int(1000 * row["multiple"]),
        "flops": 4000 * len(tasks),
        "seconds": 80.0,
        "keys": [run["job"] for run in mine],
        "epochs": [run["epoch"] for run in mine],
        "test": {task: row["test"].get(task, 0.55) for task in tasks},
        "val": {task: row["val"].get(task, 0.5) for task in tasks},
    }
