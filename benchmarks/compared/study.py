"""One set's prepared images and settings, and what every network of a comparison has in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.compared.compute import training_flops
from models.accounting import delta_mtl
from models.spec import ModelSpec
from pipeline.artifacts import DatasetManifest
from pipeline.config import Config
from pipeline.fitting import fit
from pipeline.jobs import TrainJob
from pipeline.machine import Machine
from pipeline.plan_costs import ImageCosts, image_costs, shared_spec

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Study:
    """Settings for one seed, where its images lie, and where its jobs go; `seconds` of each job trained, by its key."""

    config: Config
    machine: Machine
    prepared: Path
    manifests: Mapping[str, DatasetManifest]
    seconds: dict[str, float] = field(default_factory=dict)

    @cached_property
    def shared(self) -> ModelSpec:
        """The fully shared network."""
        return shared_spec(self.config, self.manifests)

    @cached_property
    def costs(self) -> Mapping[str, ImageCosts]:
        """FLOPs of an image of each data set, also under the names that tasks have of their own."""
        whole = image_costs(self.shared, self.manifests)
        return whole | {
            name: ImageCosts(blocks=whole[data].blocks, heads={task: whole[data].heads[task]})
            for task, name in own_names(self.config).items()
            for data in [self.config.tasks[task].dataset]
        }

    def flops(self, jobs: Sequence[TrainJob]) -> float:
        """What it takes to train jobs."""
        return training_flops(jobs, self.manifests, self.costs)

    def trained(self, jobs: Sequence[TrainJob]) -> list[Row]:
        """Map jobs to their results, from storage where they were trained before. ValueError names what failed."""
        found = []
        for outcome in fit(jobs, self.machine, self.prepared, _say):
            if outcome.result is None:
                raise ValueError(f"{outcome.job.name}: {outcome.error}")
            found.append(outcome.result)
            self.seconds[outcome.job.key] = outcome.result["seconds"]
        return found


def own_names(config: Config) -> dict[str, str]:
    """Map tasks to a data set's name of their own: experts have a router for each data set by name."""
    return {name: f"{task.dataset}-{name}" for name, task in config.tasks.items()}


def routed(config: Config) -> Config:
    """The same study with each task on its own name for its data set, under which the same images lie."""
    own = own_names(config)
    tasks = {
        name: task.model_copy(update={"dataset": own[name], "column": task.column or name})
        for name, task in config.tasks.items()
    }
    datasets = {own[name]: config.datasets[task.dataset] for name, task in config.tasks.items()}
    return config.model_copy(update={"tasks": tasks, "datasets": datasets})


def for_epochs(config: Config, epochs: int) -> Config:
    """The same study with another number of epochs of its single-task networks and trees."""
    return config.model_copy(update={"train": config.train.model_copy(update={"epochs": epochs})})


def network_row(
    name: str,
    strategy: str,
    budget: str,
    values: Mapping[str, Mapping[str, float]],
    single: Mapping[str, Row],
    **about: Any,
) -> dict[str, Any]:
    """One network of the comparison: its metrics by split and task, and each task's gain over its single-task network.

    `flops` trained it; `further` are those of what else had to be trained or computed to arrive at it.
    """
    higher = {task: row["higher_is_better"] for task, row in single.items()}
    base = {split: {task: row[split] for task, row in single.items()} for split in ("val", "test")}
    deltas = {task: delta_mtl({task: values["test"][task]}, base["test"], higher) for task in single}
    return {
        "name": name,
        "strategy": strategy,
        "budget": budget,
        "test": dict(values["test"]),
        "delta": deltas,
        "delta_mtl": delta_mtl(values["test"], base["test"], higher),
        "delta_mtl_val": delta_mtl(values["val"], base["val"], higher),
        **about,
    }


def _say(job: TrainJob, record: Mapping[str, Any]) -> None:
    if record["epoch"] == job.train.epochs:
        values = "  ".join(f"{name} {value:.3f}" for name, value in record["val"].items())
        print(f"  {job.name}: {job.train.epochs} epochs  {values}  {record['seconds']:.1f} s an epoch", flush=True)
