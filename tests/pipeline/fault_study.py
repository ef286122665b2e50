"""A driver to be disturbed: trains tiny jobs and says what each epoch and each job came to.

python -m tests.pipeline.fault_study PREPARED JOBS EPOCHS MACHINE [--raise-once FILE]

MACHINE is machine.yaml as JSON. With --raise-once the last rank raises after its second epoch, unless FILE is there.
"""

import json
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline import fitting, runner
from pipeline.artifacts import read_manifests
from pipeline.jobs import TrainJob, model_spec, task_specs, train_job
from pipeline.machine import Machine
from tests.pipeline.cases import QUIET, settings


def study(prepared: Path, jobs: int, epochs: int) -> list[TrainJob]:
    """Jobs that differ by their seed; momentum, averaged weights and learned loss weights all have a state to lose.

    A network without batch statistics: over maps of one pixel those make much of the last bit, in which ranks differ.
    """
    train = {**QUIET, "epochs": epochs, "lr": 0.02, "momentum": 0.9, "ema": 0.9}
    config = settings(tasks=("scene",), train=train, backbone={"name": "test_convnext", "locations": 4})
    manifests = read_manifests(prepared)
    model = model_spec(config, manifests, task_specs(config, manifests), [[0]] * 4)
    return [
        train_job(config, manifests, model, name=f"seed-{seed}", seed=seed, loss_weights="uncertainty")
        for seed in range(jobs)
    ]


def machine(**settings: Any) -> Machine:
    always = {"gpu": False, "channels_last": False, "checkpoint_seconds": 0, "threads": 1}
    return Machine.model_validate(always | settings)


def raising_once(file: str, worker: Callable[[Mapping[str, Any]], Any]) -> Callable[[Mapping[str, Any]], Any]:
    """A worker whose last rank raises after its second epoch, the first time."""

    def work(config: Mapping[str, Any]) -> Any:
        from pipeline import one_job

        train = one_job.train

        def trained(job: TrainJob, site: Any) -> Iterator[Any]:
            for record in train(job, site):
                yield record
                if record.epoch == 2 and site.rank + 1 == site.world and not Path(file).exists():
                    Path(file).touch()
                    raise RuntimeError("a fault that the test made")

        one_job.train = trained
        try:
            return worker(config)
        finally:
            one_job.train = train

    return work


def main() -> None:
    parser = ArgumentParser()
    parser.add_argument("prepared", type=Path)
    parser.add_argument("jobs", type=int)
    parser.add_argument("epochs", type=int)
    parser.add_argument("machine", type=json.loads)
    parser.add_argument("--raise-once")
    given = parser.parse_args()
    if given.raise_once:
        runner._worker = raising_once(given.raise_once, runner._worker)
    jobs = study(given.prepared, given.jobs, given.epochs)
    numbers = {job.key: number for number, job in enumerate(jobs)}

    def log(job: TrainJob, record: Mapping[str, Any]) -> None:
        print(f"job {numbers[job.key]} epoch {record['epoch']}", flush=True)

    for outcome in fitting.fit(jobs, machine(**given.machine), given.prepared, log):
        print(f"job {numbers[outcome.job.key]}", "failed: " + outcome.error if outcome.error else "done", flush=True)


if __name__ == "__main__":
    main()
