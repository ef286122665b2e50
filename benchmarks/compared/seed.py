"""One seed of one set -> every network of the comparison, all trained with the same FLOPs."""

from dataclasses import replace
from typing import Any

from benchmarks.compared.compute import check_equal
from benchmarks.compared.moe import moe_rows
from benchmarks.compared.study import Study, network_row
from benchmarks.compared.taps import taps_rows
from benchmarks.compared.trees import tree_rows
from models.tasks import TASKS
from pipeline.evaluate import trivial_metrics
from pipeline.jobs import TrainJob, model_spec, task_specs, train_job
from pipeline.training_state import splits_of


def compared(study: Study, seed: int) -> dict[str, Any]:
    """Train single-task networks for `train.epochs`, then all others at the FLOPs that these took together."""
    branched = study.config.branched.model_copy(update={"seeds": [seed]})
    study = replace(study, config=study.config.model_copy(update={"seed": seed, "branched": branched}), seconds={})
    single = _single(study)
    target = sum(row["train_flops"] for row in single.values())
    values = {split: {task: row[split] for task, row in single.items()} for split in ("val", "test")}
    alone = network_row(
        "single-task",
        "single-task",
        "",
        values,
        single,
        params=sum(row["params"] for row in single.values()),
        flops=target,
        further=0.0,
        epochs={"task": study.config.train.epochs},
    )
    rows = [
        alone,
        *tree_rows(study, single, target),
        *taps_rows(study, single, target),
        *moe_rows(study, single, target),
    ]
    check_equal(target, {row["name"]: row["flops"] for row in rows})
    return {
        "seed": seed,
        "tasks": {
            task: {key: row[key] for key in ("metric", "higher_is_better", "constant")} for task, row in single.items()
        },
        "counts": {name: study.manifests[name].counts for name in study.config.datasets},
        "backbone": study.config.backbone.name,
        "seconds": sum(study.seconds.values()),
        "networks": rows,
    }


def _single(study: Study) -> dict[str, dict[str, Any]]:
    """Map tasks to what their networks reached and cost."""
    config, alone = study.config, ((0,),) * study.config.backbone.locations
    specs = task_specs(config, study.manifests)
    jobs = [
        train_job(
            config,
            study.manifests,
            model_spec(config, study.manifests, [spec], alone),
            name=spec.name,
            seed=config.seed,
        )
        for spec in specs
    ]
    return {
        spec.name: {
            "metric": TASKS[spec.kind].metric_name,
            "higher_is_better": TASKS[spec.kind].higher_is_better,
            "val": result["val"][spec.name],
            "test": result["test"][spec.name],
            "params": result["params"],
            "constant": constant_of(study, job),
            "job": job.key,
            "train_flops": study.flops([job]),
        }
        for spec, job, result in zip(specs, jobs, study.trained(jobs), strict=True)
    }


def constant_of(study: Study, job: TrainJob) -> float:
    """What the best constant prediction reaches on test: a network that does not beat it has learned nothing."""
    (spec,) = job.model.tasks
    train, test = (splits_of(job, study.prepared, split) for split in ("train", "test"))
    return trivial_metrics({spec.name: TASKS[spec.kind](spec)}, train, test)[spec.name]
