"""Training jobs -> results, on this machine or a Ray cluster; the only file that imports ray.

jobs = 1, workers = 0   one job after another in this process (Ray Train's local mode, no cluster)
jobs > 1, workers = 0   several at once: each is a trial of Ray Tune
workers > 0             each job is a group of worker processes with DDP; several groups at once through Ray Tune

A job whose result stands in storage is not run again; an interrupted one goes on from its checkpoint. The stage's `log`
gets every record in this process, whatever ran where: workers write a job's history, a thread here reads it.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.config import ROOT, Machine
from pipeline.jobs import TrainJob
from pipeline.loop import conclude, train
from pipeline.step import Diverged
from pipeline.storage import JobFolder
from pipeline.training_state import Site

POLL_SECONDS = 1.0
LOADERS = 4  # processes that decode images for one GPU, where machine.yaml does not say


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """What became of a job: its result (see `loop.conclude`), or the message it failed with. `cached`: it was there."""

    job: TrainJob
    result: Mapping[str, Any] | None
    error: str | None = None
    cached: bool = False


Log = Callable[[TrainJob, Mapping[str, Any]], None]


def fit(jobs: Sequence[TrainJob], machine: Machine, prepared: Path, log: Log) -> list[JobResult]:
    """Map jobs to results in their order; a failed job leaves the others running. Equal jobs are run once."""
    todo = unfinished(jobs, machine)
    errors = _run(list(todo.values()), machine, prepared, log, None)
    return [_result(job, machine, errors.get(job.key), job.key not in todo) for job in jobs]


def advance(jobs: Sequence[TrainJob], machine: Machine, prepared: Path, log: Log, epoch: int) -> dict[str, float]:
    """Bring jobs to the end of an epoch and no further; map their keys to the best score so far, failed ones left out.

    `fit` goes on from there, to the very weights that it would have reached at once.
    """
    todo = [
        job
        for job in unfinished(jobs, machine).values()
        if len(JobFolder(machine.storage, job.key).read_history()) < epoch
    ]
    failed = _run(todo, machine, prepared, log, epoch)
    histories = {job.key: JobFolder(machine.storage, job.key).read_history() for job in jobs if job.key not in failed}
    return {key: max(record["score"] for record in records[:epoch]) for key, records in histories.items() if records}


def spread(
    function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any], machine: Machine
) -> Iterator[tuple[int, Any]]:
    """Map items to (index, function(shared, item)) on the cluster as they finish; it imports the function's file alone.

    `shared` is sent once. Items of a worker that dies go to another. Files must be where all machines see them.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _connect(machine)
    task = ray.remote(num_cpus=1, max_retries=machine.max_failures)(function)
    held, waiting, running = ray.put(shared), iter(enumerate(items)), {}
    while True:
        most = machine.prepare_workers or 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        running |= {task.remote(held, item): index for index, item in islice(waiting, max(0, most - len(running)))}
        if not running:
            return
        ended = ray.wait(list(running))[0][0]
        try:
            result = ray.get(ended)
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            raise ValueError(f"the cluster gave up; the same command goes on from here: {error}") from error
        yield running.pop(ended), result


def everywhere(function: Callable[[Any], Any], argument: Any, machine: Machine) -> dict[str, Any]:
    """Map each machine of the cluster, by its address, to function(argument) as it gives there."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    _connect(machine)
    nodes = {node["NodeManagerAddress"]: node["NodeID"] for node in ray.nodes() if node["Alive"]}
    task = ray.remote(num_cpus=0)(function)
    pinned = {
        place: task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(argument)
        for place, node in nodes.items()
    }
    return dict(zip(pinned, ray.get(list(pinned.values())), strict=True))


def _run(jobs: Sequence[TrainJob], machine: Machine, prepared: Path, log: Log, until: int | None) -> dict[str, str]:
    """Run jobs to their end, or to that of epoch `until`; give the messages of those that failed, by key."""
    site = _site(machine, prepared)
    if not jobs:
        return {}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune's table and hints, where the stage's own lines stand
    with _following(jobs, machine.storage, log):
        run = _one_by_one if machine.jobs == 1 or len(jobs) == 1 else _at_once
        return run(jobs, machine, site, until)


def unfinished(jobs: Sequence[TrainJob], machine: Machine) -> dict[str, TrainJob]:
    """Map jobs to those, by key, whose result does not stand in storage yet."""
    return {job.key: job for job in jobs if JobFolder(machine.storage, job.key).read_result() is None}


def _result(job: TrainJob, machine: Machine, error: str | None, cached: bool) -> JobResult:
    result = JobFolder(machine.storage, job.key).read_result()
    if result is None and error is None:
        error = "stopped without a result or a message"
    return JobResult(job=job, result=result, error=error if result is None else None, cached=cached)


def _site(machine: Machine, prepared: Path) -> Site:
    import torch

    gpu = torch.cuda.is_available() if machine.gpu is None else machine.gpu
    if machine.alone and gpu and not torch.cuda.is_available():
        raise ValueError("machine.yaml gpu: true, but torch sees no GPU here; set gpu: false, or workers and address")
    if machine.alone and machine.threads is not None:
        torch.set_num_threads(machine.threads)
    return Site(
        prepared=prepared,
        storage=machine.storage,
        device="cuda" if gpu else "cpu",
        loader_workers=(LOADERS if gpu else 0) if machine.loader_workers is None else machine.loader_workers,
        channels_last=machine.channels_last,
        compile=machine.compile,
        checkpoint_seconds=machine.checkpoint_seconds,
        checkpoints=machine.checkpoints,
        cache=machine.cache,
    )


def _one_by_one(jobs: Sequence[TrainJob], machine: Machine, site: Site, until: int | None) -> dict[str, str]:
    errors = {job.key: _fit_one(job, machine, site, until) for job in jobs}
    return {key: error for key, error in errors.items() if error}


def _at_once(jobs: Sequence[TrainJob], machine: Machine, site: Site, until: int | None) -> dict[str, str]:
    """Run several trainers at a time. More at once than the cluster can hold would wait for one another for ever."""
    from ray import tune

    _connect(machine)
    by_key = {job.key: job for job in jobs}

    def trial(config: dict[str, Any]) -> None:
        job = by_key[config["key"]]
        if not machine.alone:
            error = _fit_one(job, machine, site, until)
        else:  # Ray Train's local mode is refused inside a trial; the trial is the process that it would be
            if site.device == "cpu":
                import torch

                torch.set_num_threads(machine.threads or machine.cpus_per_worker)
            error = _train(job, site, until)
        tune.report({"error": error or ""})

    cpus = machine.cpus_per_worker if machine.alone else 0
    gpus = machine.gpus_per_worker if site.device == "cuda" and machine.alone else 0
    tuner = tune.Tuner(
        tune.with_resources(trial, {"cpu": cpus, "gpu": gpus}),
        param_space={"key": tune.grid_search(list(by_key))},
        tune_config=tune.TuneConfig(max_concurrent_trials=None if machine.jobs == "auto" else machine.jobs),
        run_config=tune.RunConfig(
            storage_path=f"{machine.storage}/tune",
            failure_config=tune.FailureConfig(max_failures=machine.max_failures),
            verbose=0,
        ),
    )
    errors = {}
    for outcome in tuner.fit():
        config = outcome.config or {}
        message = str(outcome.error) if outcome.error else (outcome.metrics or {}).get("error", "")
        if message:
            errors[config["key"]] = message
    return errors


def _fit_one(job: TrainJob, machine: Machine, site: Site, until: int | None) -> str | None:
    """Run one job by a Ray trainer; give the message it failed with, or None."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    logging.getLogger("ray.train").setLevel(logging.WARNING)
    if not machine.alone:
        _connect(machine)
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"job": job, "site": site, "until": until},
        scaling_config=ScalingConfig(num_workers=machine.workers[1], use_gpu=site.device == "cuda"),
        run_config=RunConfig(
            name=job.key,
            storage_path=f"{machine.storage}/ray",
            failure_config=FailureConfig(max_failures=machine.max_failures),
        ),
    )
    try:
        return trainer.fit().return_value
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _worker(config: Mapping[str, Any]) -> str | None:
    """What every rank runs."""
    import ray.train
    from ray.train.torch import get_device

    job, site, context = config["job"], config["site"], ray.train.get_context()
    # The site says whether there are GPUs; which of a node's GPUs is this rank's, only Ray knows.
    device = str(get_device()) if site.device == "cuda" else site.device
    site = replace(site, rank=context.get_world_rank(), world=context.get_world_size(), device=device)
    return _train(job, site, config["until"], ray.train.report)


def _train(
    job: TrainJob, site: Site, until: int | None, report: Callable[[dict[str, Any]], None] | None = None
) -> str | None:
    """Train and conclude a job, or train it up to an epoch. A diverged one is an answer; no restart could mend it."""
    try:
        for record in train(job, site):
            if report is not None:
                report({"epoch": record.epoch, "score": record.score})
            if record.epoch == until:
                return None
        if site.rank == 0:
            conclude(job, site)
    except Diverged as error:
        return str(error)
    return None


def _connect(machine: Machine) -> None:
    import ray

    if not ray.is_initialized():
        # Token authentication is for clusters; one that lives inside this process listens on loopback alone.
        environment = {
            "working_dir": str(ROOT),
            "excludes": ["/artifacts", "/runs", "/.venv", "/.git", "/.dvc", "*.db"],
        }
        ray.init(address=machine.address, runtime_env=environment if machine.address else None, log_to_driver=False)


@contextmanager
def _following(jobs: Sequence[TrainJob], storage: str, log: Log) -> Iterator[None]:
    """Hand each new line of the jobs' histories to `log`, from now until the block has ended and all were seen."""
    ended = threading.Event()
    seen: dict[str, int] = {}

    def look() -> None:
        for job in jobs:
            records = JobFolder(storage, job.key).read_history()
            for record in records[seen.get(job.key, 0) :]:
                log(job, record)
            seen[job.key] = max(len(records), seen.get(job.key, 0))

    def follow() -> None:
        while not ended.wait(POLL_SECONDS):
            look()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        look()
