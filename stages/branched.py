"""Train the fully shared tree, the fully split one, and one tree per budget.    python -m stages.branched

Leaves artifacts/branched/<tree>/ (a bundle), trials.parquet (every metric of every epoch) and metrics.json with Δ_MTL
against the single-task networks of `pretrain`.
"""

from statistics import mean

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
        jobs, tree_of = [], {}
        for tree in chosen:
            spec = model_spec(at.config, manifests, tasks, tree["groups"])
            reference = {name: row["val"] for name, row in single.items()}
            for seed in at.config.branched.seeds:
                name = f"{tree['name']}-s{seed}"
                jobs.append(train_job(at.config, manifests, spec, name=name, seed=seed, reference=reference))
                tree_of[name] = tree
        tags = {
            job.name: {"strategy": "branched", "budget": tree_of[job.name]["request"] or tree_of[job.name]["name"]}
            for job in jobs
        }
        results = train_jobs(at, jobs, tags)
        higher = {name: row["higher_is_better"] for name, row in single.items()}
        metrics = {}
        for tree in chosen:
            runs = [results[f"{tree['name']}-s{seed}"] for seed in at.config.branched.seeds]
            values = {name: mean(run["test"][name] for run in runs) for name in higher}
            deltas = [
                delta_mtl(run["test"], {name: row["test"] for name, row in single.items()}, higher) for run in runs
            ]
            metrics[tree["name"]] = {
                "delta_mtl": mean(deltas),
                "delta_mtl_val": mean(run["score"] for run in runs),
                "seeds": len(deltas),
                "params": runs[0]["params"],
                "flops": runs[0]["flops"],
                "seconds": sum(run["seconds"] for run in runs),
                "jobs": [run["key"] for run in runs],
                "test": values,
            }
            at.run.log({f"delta_mtl/{tree['name'].replace('budget-', '')}": mean(deltas)}, 0)
            at.say(f"branched {tree['name']}: {runs[0]['params']:,} parameters, Δ_MTL {mean(deltas):+.2f} % on test")
        with writing("branched") as folder:
            for job in jobs:
                copy_result(job, at.machine, folder / job.name)
            write_table(folder / "trials.parquet", [row for job in jobs for row in trials(job, at.machine)], TRIALS)
            write_json(folder / "metrics.json", metrics)


if __name__ == "__main__":
    start(main)
