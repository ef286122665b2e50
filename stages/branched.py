"""Train the fully shared tree, the fully split one, and one tree per budget.    python -m stages.branched

Leaves artifacts/branched/<tree>/ (a bundle), trials.parquet (every metric of every epoch) and metrics.json with Δ_MTL
against the single-task networks of `pretrain`.
"""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from models.accounting import delta_mtl
from pipeline.artifacts import ARTIFACTS, TRIALS, read_json, read_manifests, write_json, write_table, writing
from pipeline.jobs import model_spec, task_specs, train_job
from pipeline.results import copy_result, trials
from stages.session import session, start
from stages.training import train_jobs


def main() -> None:
    with session("branched") as at:
        manifests, single = read_manifests(), read_json(ARTIFACTS / "pretrain" / "metrics.json")
        tasks, chosen = task_specs(at.config, manifests), read_json(ARTIFACTS / "trees" / "chosen.json")["trees"]
        reference = {name: row["val"] for name, row in single.items()}
        jobs, tags = [], {}
        for tree in chosen:
            spec = model_spec(at.config, manifests, tasks, tree["groups"])
            for seed in at.config.branched.seeds:
                name = f"{tree['name']}-s{seed}"
                jobs.append(train_job(at.config, manifests, spec, name=name, seed=seed, reference=reference))
                tags[name] = {"strategy": "branched", "budget": tree["request"] or tree["name"]}

        def delta(result: Mapping[str, Any]) -> float:
            higher = {name: row["higher_is_better"] for name, row in single.items()}
            return delta_mtl(result["test"], {name: row["test"] for name, row in single.items()}, higher)

        results = train_jobs(at, jobs, tags, more=lambda result: {"final/delta_mtl": delta(result)})
        metrics = {}
        for tree in chosen:
            runs = [results[f"{tree['name']}-s{seed}"] for seed in at.config.branched.seeds]
            metrics[tree["name"]] = row = summary(runs, [delta(run) for run in runs])
            at.run.log({f"delta_mtl/{tree['name'].replace('budget-', '')}": row["delta_mtl"]}, 0)
            at.say(f"branched {tree['name']}: {row['params']:,} parameters, Δ_MTL {row['delta_mtl']:+.2f} % on test")
        with writing("branched") as folder:
            for job in jobs:
                copy_result(job, at.machine, folder / job.name)
            write_table(folder / "trials.parquet", [row for job in jobs for row in trials(job, at.machine)], TRIALS)
            write_json(folder / "metrics.json", metrics)


def summary(runs: Sequence[Mapping[str, Any]], deltas: Sequence[float]) -> dict[str, Any]:
    """One tree's results over its seeds, with Δ_MTL against the single-task networks on test and on validation."""
    return {
        "delta_mtl": mean(deltas),
        "delta_mtl_val": mean(run["score"] for run in runs),
        "seeds": len(runs),
        "params": runs[0]["params"],
        "flops": runs[0]["flops"],
        "seconds": sum(run["seconds"] for run in runs),
        "jobs": [run["key"] for run in runs],
        "test": {name: mean(run["test"][name] for run in runs) for name in runs[0]["test"]},
    }


if __name__ == "__main__":
    start(main)
