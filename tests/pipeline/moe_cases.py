"""Invented results of training with experts and of adapting them, as their stages leave them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

TASKS = {"cifar100": "accuracy", "bccd": "mask_ap", "nyuv2": "mean_iou"}
NEW = {"gtsrb": "accuracy", "eurosat": "accuracy"}
LAMS = (0.0, 0.01)
BACKBONE, EXPERT, ROUTER, HEAD = 600_000, 33_000, 1_500, 12_900
# Each mode's label, and its share of trained experts, share of experts left, experts a token, and what it reaches.
MODES = {
    "full": ("full fine-tuning", None, 1.0, 4, 0.90),
    "adapter": ("adapter of 64", 0.0, 1.0, 4, 0.77),
    "router": ("router only", 0.0, 1.0, 4, 0.79),
    "router_1": ("router + 1 expert", 1.0, 1.0, 4, 0.87),
    "router_2": ("router + 2 experts", 2.0, 1.0, 4, 0.892),
    "router_1_most": ("router + 1 expert (most used)", 1.0, 1.0, 4, 0.872),
    "router_1_least": ("router + 1 expert (least used)", 1.0, 1.0, 4, 0.868),
    "prune_1_2": ("all, 50% of experts pruned", None, 1 / 2, 4, 0.898),
    "prune_2_3": ("all, 67% of experts pruned", None, 1 / 3, 4, 0.896),
    "prune_threshold": ("all, experts below 5% of use pruned", None, 0.6, 4, 0.899),
    "top_k_3": ("all, top 3", None, 1.0, 3, 0.888),
    "top_k_2": ("all, top 2", None, 1.0, 2, 0.86),
    "top_k_1": ("all, top 1", None, 1.0, 1, 0.74),
    "hybrid_a": ("router + 1 expert, 67% of experts pruned, top 2", 1.0, 1 / 3, 2, 0.862),
    "hybrid_b": ("router + 2 experts, 67% of experts pruned, top 3", 2.0, 1 / 3, 3, 0.884),
}


def rises(metric: str) -> bool:
    return metric != "rmse"


def moe_metrics(
    tasks: Mapping[str, str] = TASKS,
    *,
    layers: int = 4,
    experts: int = 12,
    lams: Sequence[float] = LAMS,
    methods: Sequence[str] = ("dense", "finetune", "scratch"),
    scratch: Mapping[str, str] | None = None,
    network: bool = False,
) -> dict[str, Any]:
    """Tasks with their metrics, one data set each; `scratch` are the keys of the single-task networks."""
    rng, names = np.random.default_rng(len(tasks)), list(tasks)
    alone = scratch or {task: f"{task} alone" for task in tasks}
    found = layers_of(layers, experts)
    about = {"params": BACKBONE + layers * experts * EXPERT, "backbone_params": BACKBONE, "flops": 510_000_000}
    runs = []
    for place, lam in enumerate(lams):
        probs = np.array([expert_probs(rng, len(names), experts, 0.4 + 12 * lam**0.5) for _ in range(layers)])
        runs.append(
            _line(rng, f"moe-lam{lam:g}", f"MoE λ={lam:g}", "moe", lam, tasks, 1.5 - 0.8 * place)
            | about
            | {"picks": shares_of(probs).tolist(), "probs": probs.tolist(), "mi": [information(one) for one in probs]}
        )
    others = {
        "dense": ("dense (MTHL.D)", BACKBONE + 300_000, 440_000_000, 0.2),
        "finetune": ("pre-trained, fine-tuned", len(names) * 900_000, len(names) * 440_000_000, 2.1),
        "scratch": ("from scratch", len(names) * 900_000, len(names) * 440_000_000, 0.0),
    }
    for method in methods:
        label, params, flops, delta = others[method]
        # The network that the others are fine-tuned from is the last task's own, and comes first.
        jobs = {
            "dense": ["key dense"],
            "finetune": [alone[names[-1]], *(f"key {task} tuned" for task in names[:-1])],
            "scratch": [alone[task] for task in names],
        }[method]
        line = _line(rng, method, label, method, None, tasks, delta) | {"params": params, "flops": flops, "jobs": jobs}
        if method == "scratch":
            line |= {"delta_mtl_val": 0.0, "delta_mtl": 0.0}
        runs.append(line | {"epochs": [7] * len(jobs), "seconds": 100.0 * len(jobs)})
    keys = ("name", "label", "params", "flops", "seconds", "epochs", "val", "test", "delta_mtl", "delta_mtl_val")
    return {
        "tasks": {
            task: {"metric": metric, "higher_is_better": rises(metric), "dataset": task}
            for task, metric in tasks.items()
        },
        "datasets": names,
        "layers": found,
        "runs": runs,
        "chosen": f"moe-lam{lams[-1]:g}",
        "networks": [
            {key: run[key] for key in keys} | {"keys": run["jobs"]}
            for run in runs
            if network and run["method"] in ("moe", "dense")
        ],
    }


def layers_of(layers: int, experts: int) -> list[dict[str, Any]]:
    return [
        {"name": f"layers.{stage}.blocks.{1 + 2 * (place // 4)}.mlp", "location": 1 + stage, "experts": experts}
        | {"top_k": min(4, experts), "channels": 128, "hidden": 128}
        for place in range(layers)
        for stage in [4 * place // layers]
    ]


def expert_probs(rng: np.random.Generator, rows: int, experts: int, strength: float) -> np.ndarray:
    """Mean probabilities [M, E]: the stronger, the more a data set prefers experts of its own."""
    logits = strength * rng.normal(size=(rows, experts)) + 0.3 * rng.normal(size=experts)
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def shares_of(probs: np.ndarray) -> np.ndarray:
    """Shares of the choices that follow the probabilities; each token chooses several experts, so none has all."""
    shares = probs / probs.sum(-1, keepdims=True)
    for _ in range(50):
        shares = np.minimum(shares, 1 / min(4, probs.shape[-1]))
        shares = shares / shares.sum(-1, keepdims=True)
    return shares


def information(probs: np.ndarray) -> float:
    """I(expert; data set) in nats of P(i|j) [M, E], every data set weighing the same."""
    return float((probs * np.log(probs / probs.mean(0))).sum(1).mean())


def _line(
    rng: np.random.Generator, name: str, label: str, method: str, lam: float | None, tasks: Mapping, delta: float
) -> dict[str, Any]:
    heights = {task: 0.5 + 0.4 * place / len(tasks) for place, task in enumerate(tasks)}
    gain = {task: 1 + (delta + float(rng.normal())) / 100 for task in tasks}
    values = {task: heights[task] * (gain[task] if rises(tasks[task]) else 2 - gain[task]) for task in tasks}
    return (
        {"name": name, "label": label, "method": method, "lam": lam, "seed": 0, "jobs": [f"key {name}"]}
        | {"epochs": [7], "seconds": 210.0, "val": dict(values), "test": values, "delta_mtl": delta}
        | {"delta_mtl_val": delta + 0.4, "picks": None, "probs": None, "mi": None, "news": "what later versions add"}
    )


def adapt_metrics(
    tasks: Mapping[str, str] = NEW,
    *,
    old: Mapping[str, str] = TASKS,
    layers: int = 4,
    experts: int = 12,
    modes: Sequence[str] = tuple(MODES),
    continual: Sequence[str] = ("experts", "lwf"),
) -> dict[str, Any]:
    """Every mode for every new task, at two learning rates each, and all of them learned one after another."""
    rng, found = np.random.default_rng(7), layers_of(layers, experts)
    routers = {
        task: [shares_of(expert_probs(rng, 1, experts, 1.0))[0].tolist() for _ in range(layers)] for task in tasks
    }
    runs = [
        _run(rng, mode, task, tasks[task], lr, routers[task], layers, experts)
        for mode in modes
        for task in tasks
        for lr in (0.001, 0.01)
    ]
    base = {"name": "moe-lam0.01", "job": "key moe-lam0.01", "tasks": list(old), "datasets": list(old)}
    base |= {"params": BACKBONE + layers * experts * EXPERT, "backbone_params": BACKBONE, "flops": 510_000_000}
    taught = _continual(rng, tasks, old, continual, layers) if continual else None
    for line in taught["methods"] if taught else []:
        runs += [_taught_run(line, task, job) for task, job in zip(tasks, line["jobs"], strict=True)]
    return {
        "base": base,
        "tasks": {
            task: {"metric": metric, "higher_is_better": rises(metric), "dataset": task}
            | {"scratch_test": 0.88 if rises(metric) else 0.3, "scratch_params": 900_000}
            for task, metric in tasks.items()
        },
        "modes": _modes(runs, modes, tasks),
        "runs": runs,
        "layers": found,
        "continual": taught,
    }


def _run(
    rng: np.random.Generator, mode: str, task: str, metric: str, lr: float, router: list, layers: int, experts: int
) -> dict[str, Any]:
    label, own, share, top_k, height = MODES[mode]
    value = height + 0.01 * float(rng.normal()) - (0.02 if lr == 0.01 else 0.0)
    left = max(min(top_k, experts), round(share * experts))
    picks = []
    for row in router:
        kept = sorted(range(experts), key=lambda number: -row[number])[:left]
        total = sum(row[number] for number in kept)
        shares = [row[number] / total if number in kept else 0.0 for number in range(experts)]
        picks.append(shares[: max(kept) + 1])  # the stage gives no number beyond the last expert that is left
    model = BACKBONE + layers * (left * EXPERT + ROUTER)
    trained = model if own is None else int(layers * (ROUTER + own * EXPERT))
    trained += 40_000 * layers if mode == "adapter" else 0
    return (
        {"name": f"{task}-{mode}-lr{lr:g}", "mode": mode, "task": task, "lr": lr, "seed": 0, "top_k": top_k}
        | {"job": f"key {task} {mode} {lr:g}", "epoch": 9, "seconds": 33.0, "label": label}
        | {split: value if rises(metric) else 1.2 - value for split in ("val", "test")}
        | {"trained_params": trained, "model_params": model, "head_params": HEAD, "experts": [left] * layers}
        | {"flops": 250_000_000 + 65_000_000 * top_k, "picks": picks, "news": "what later versions add"}
    )


def _modes(runs: Sequence[Mapping], modes: Sequence[str], tasks: Mapping[str, str]) -> list[dict[str, Any]]:
    """Of the two learning rates the first, which is the better; shares of full fine-tuning where it was trained."""
    lines = []
    for mode in modes:
        best = {task: next(run for run in runs if (run["mode"], run["task"]) == (mode, task)) for task in tasks}
        sizes = {
            key: sum(run[key] for run in best.values()) / len(best)
            for key in ("trained_params", "model_params", "flops")
        }
        test = {task: run["test"] for task, run in best.items()}
        lines.append(
            {
                "mode": mode,
                "label": MODES[mode][0],
                "test": test,
                "val": {task: run["val"] for task, run in best.items()},
            }
            | {"mean": sum(test.values()) / len(test) if len(set(tasks.values())) == 1 else None, **sizes}
            | {"runs": {task: run["name"] for task, run in best.items()}}
        )
    full = next((line for line in lines if line["mode"] == "full"), None)
    shares = {"trained_share": "trained_params", "params_share": "model_params", "flops_share": "flops"}
    return [line | {key: line[of] / full[of] if full else None for key, of in shares.items()} for line in lines]


def _continual(
    rng: np.random.Generator, tasks: Mapping[str, str], old: Mapping[str, str], methods: Sequence[str], layers: int
) -> dict[str, Any]:
    """Experts forget nothing; LwF loses a few percent of every earlier task at each step."""
    names, metrics = [*old, *tasks], {**old, **tasks}
    first = {task: 0.6 + 0.3 * float(rng.random()) for task in names}
    lines = []
    for method in methods:
        matrix = []
        for step in range(len(tasks) + 1):
            row: list[float | None] = [None] * len(names)
            for place, task in enumerate(names[: len(old) + step]):
                since = step - max(0, place - len(old) + 1)
                loss = 0.07 * since if method == "lwf" else 0.0
                row[place] = first[task] * (1 - loss if rises(metrics[task]) else 1 + loss)
            matrix.append(row)
        new = layers * (EXPERT + ROUTER) if method == "experts" else layers * ROUTER
        whole = BACKBONE + layers * 12 * EXPERT
        lines.append(
            {"method": method, "label": "own router + 1 expert" if method == "experts" else "LwF", "matrix": matrix}
            | {"new_params": [new] * len(tasks), "trained_params": [new if method == "experts" else whole] * len(tasks)}
            | {"jobs": [f"key {task} {method}" for task in tasks]}
            | {"params": [whole + step * new for step in range(len(tasks) + 1)]}
        )
    about = {task: {"metric": metric, "higher_is_better": rises(metric)} for task, metric in metrics.items()}
    return {"tasks": names, "steps": ["moe-lam0.01", *tasks], "metrics": about, "methods": lines}


def _taught_run(line: Mapping, task: str, job: str) -> dict[str, Any]:
    mode = {"experts": "added", "lwf": "lwf"}[line["method"]]
    return {
        "name": f"{task}-{mode}-lr0.001",
        "mode": mode,
        "task": task,
        "lr": 0.001,
        "seed": 0,
        "job": job,
        "epoch": 8,
    } | {"seconds": 44.0, "val": 0.8, "test": 0.8, "experts": [], "picks": [], "top_k": 4}
