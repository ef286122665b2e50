"""Training jobs -> results, on this machine or a Ray cluster; the only file that imports ray.

jobs = 1, workers = 0   one job after another in this process (Ray Train's local mode, no cluster)
jobs > 1, workers = 0   several at once: each is a trial of Ray Tune
workers > 0             each job is a group of worker processes with DDP; several groups at once through Ray Tune

An interrupted job goes on from its checkpoint. The stage's `log` gets every record in this process, whatever ran where:
workers write a job's history, `following` reads it.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.config import ROOT
from pipeline.following import Log, following
from pipeline.gpus import sees_gpu, why_none
from pipeline.jobs import TrainJob, usable_ranks
from pipeline.machine import Machine
from pipeline.one_job import run_job, with_threads
from pipeline.ray_environment import (
    EXCLUDED,
    keep_to_loopback,
    meet_at,
    not_connected,
    own_ctrl_c,
    prepare_environment,
    reason,
)
from pipeline.shipping import fetch, ready_cluster
from pipeline.storage import PATIENCE, open_storage
from pipeline.terminal import labelled
from pipeline.training_state import Site

LOADERS = 4  # processes that decode images for one GPU, where machine.yaml does not say
TRAINER_BYTES = 5e8  # of the process that starts a job's workers and waits for them
ANNOUNCED = "COPPICE_CLUSTER"  # the cluster that one of a command's processes has told of


def spread(
    function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any], machine: Machine
) -> Iterator[tuple[int, Any]]:
    """Map items to (index, function(shared, item)) on the cluster as they finish; it imports the function's file alone.

    `shared` is sent once. Items of a worker that dies go to another. Files must be where all machines see them.
    """
    connect(machine)
    import ray
    from ray.exceptions import RayError, RayTaskError

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
    connect(machine)
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = {node["NodeManagerAddress"]: node["NodeID"] for node in ray.nodes() if node["Alive"]}
    task = ray.remote(num_cpus=0)(function)
    pinned = {
        place: task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(argument)
        for place, node in nodes.items()
    }
    return dict(zip(pinned, ray.get(list(pinned.values())), strict=True))


@contextmanager
def kept_cluster(machine: Machine) -> Iterator[None]:
    """Keep one cluster for all the processes that are started in this block."""
    connect(machine)
    import ray

    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    try:
        yield
    finally:
        del os.environ["RAY_ADDRESS"]
        ray.shutdown()


def connect(machine: Machine) -> None:
    """Join the cluster that machine.yaml names or `kept_cluster` holds, or start one on this machine's loopback.

    ValueError where none answers, or it refuses this machine's token.
    """
    prepare_environment(machine)
    keep_to_loopback(machine)
    import ray

    if ray.is_initialized():
        return
    try:
        context = ray.init(
            # "local": Ray would else join whatever cluster was last started on this machine.
            address=machine.address or os.environ.get("RAY_ADDRESS", "local"),
            runtime_env=_sent() if machine.address else None,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    except Exception as error:  # Ray raises whatever kept it from starting, a bare Exception among them
        raise ValueError(not_connected(machine, error)) from error
    _announce(context.dashboard_url)


def _sent() -> dict[str, Any]:
    """What workers on other machines get: the sources, which those of a submitted job have, and what they do first."""

    def begin() -> None:  # inside, so that it travels by value: by name every process of Ray would import torch for it
        import ray

        meet_at(ray.util.get_node_ip_address())

    first = {"worker_process_setup_hook": begin}
    submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    return first if submitted else {"working_dir": str(ROOT), "excludes": EXCLUDED, **first}


def _announce(dashboard: str | None) -> None:
    """Say what the cluster holds, once for all stages that one command runs."""
    import ray

    address = ray.get_runtime_context().gcs_address
    if os.environ.get(ANNOUNCED) == address:
        return
    os.environ[ANNOUNCED] = address
    held, machines = ray.cluster_resources(), sum(node["Alive"] for node in ray.nodes())
    resources = f"{machines} machine{'s' * (machines != 1)}, {held.get('CPU', 0):g} CPUs, {held.get('GPU', 0):g} GPUs"
    more = f"; dashboard http://{dashboard}" if dashboard else ""
    print(labelled("cluster", f"{resources}{more}"), flush=True)


def run_jobs(jobs: Sequence[TrainJob], machine: Machine, prepared: Path, log: Log, until: int | None) -> dict[str, str]:
    """Run jobs to their end, or to that of epoch `until`; give the messages of those that failed, by key."""
    if not jobs:
        return {}
    here = machine.address is None and machine.alone and (machine.jobs == 1 or len(jobs) == 1)
    if not here:
        connect(machine)
    if machine.address:
        names = sorted({name for job in jobs for name, *_ in job.datasets})
        ready_cluster(prepared, machine.storage, names, partial(_ask, machine), partial(print, flush=True))
        if (
            not machine.alone
        ):  # ranks that have the data would wait for those that fetch it no longer than for the stuck
            datasets = {name: fingerprint for job in jobs for name, fingerprint, *_ in job.datasets}
            _ask(machine, fetch, (datasets, prepared, machine.storage, machine.cache))
    open_storage(machine.storage)
    site = _site(machine, prepared, here)
    one = here or (not machine.alone and machine.jobs == 1)
    with following(jobs, machine.storage, log):
        return (_one_by_one if one else _at_once)(jobs, machine, site, until)


def _ask(machine: Machine, function: Callable[[Any], Any], argument: Any) -> dict[str, Any]:
    return everywhere(function, argument, machine)


def _site(machine: Machine, prepared: Path, here: bool) -> Site:
    gpu = _sees_gpu(here) if machine.gpu is None else machine.gpu
    if here and gpu and not sees_gpu():
        raise ValueError(
            f"machine.yaml gpu: true, but torch sees no GPU here ({why_none()}). Set gpu: false to train on the CPU, or"
            " address to a cluster that has GPUs"
        )
    threads = machine.threads or (machine.cpus_per_worker if machine.jobs != 1 else None)
    if here and threads is not None:  # as many as a trial has, where one job is left of several
        import torch

        torch.set_num_threads(threads)
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
        storage_stands=True,
    )


def _sees_gpu(here: bool) -> bool:
    if here:
        return sees_gpu()
    import ray

    return ray.cluster_resources().get("GPU", 0) > 0


def _needs(machine: Machine, site: Site) -> dict[str, float]:
    """What a process that trains takes of its machine."""
    gpus = {"GPU": machine.gpus_per_worker} if site.device == "cuda" else {}
    return {"CPU": float(machine.cpus_per_worker), **gpus}


def _room(machine: Machine, site: Site) -> int:
    """How many jobs the cluster holds at once; more would only wait for one another.

    ValueError where it does not hold one: it would wait for ever.
    """
    import ray

    needs, nodes = _needs(machine, site), [node["Resources"] for node in ray.nodes() if node["Alive"]]
    processes = sum(min(_times(need, node.get(name, 0)) for name, need in needs.items()) for node in nodes)
    of_job = max(1, machine.workers[0])
    if processes < of_job and not machine.autoscaling:
        if "GPU" in needs and not any(node.get("GPU") for node in nodes):
            raise ValueError(
                f"machine.yaml gpu: true, but none of the cluster's {len(nodes)} machines has a GPU for Ray. Start Ray"
                " there with --num-gpus, or set gpu: false to train on CPUs"
            )
        wanted = " and ".join(f"{need:g} {name}" for name, need in needs.items())
        raise ValueError(
            f"machine.yaml workers: a job takes {of_job} of {wanted} each, the cluster ({len(nodes)} machines) has room"
            f" for {processes}; take fewer, or set autoscaling: true where it adds machines"
        )
    return max(1, processes // of_job)


def _times(need: float, there: float) -> int:
    """How often a need fits; a fraction of a GPU lies on one of them."""
    return int(there) * int(1 / need) if need < 1 else int(there / need)


def _one_by_one(jobs: Sequence[TrainJob], machine: Machine, site: Site, until: int | None) -> dict[str, str]:
    if not machine.alone:
        _room(machine, site)
    errors = {job.key: _fit_patiently(job, machine, site, until) for job in jobs}
    return {key: error for key, error in errors.items() if error}


def _fit_patiently(job: TrainJob, machine: Machine, site: Site, until: int | None) -> str | None:
    """Run a job; what took its trainer along, and no worker's fault, is tried again as a trial of Tune would be."""
    for attempt in range(machine.max_failures + 1):
        try:
            return _fit_one(job, machine, site, until)
        except Exception as error:
            if machine.alone or attempt == machine.max_failures:
                return reason(error) if not machine.alone else f"{type(error).__name__}: {error}"
    return None


def _at_once(jobs: Sequence[TrainJob], machine: Machine, site: Site, until: int | None) -> dict[str, str]:
    """Run several trainers at a time, each in a trial of Ray Tune."""
    from ray import tune

    by_key, room = {job.key: job for job in longest_first(jobs)}, _room(machine, site)

    def trial(config: dict[str, Any]) -> None:
        job = by_key[config["key"]]
        if machine.alone:  # Ray Train's local mode is refused inside a trial; the trial is the process that it would be
            error = run_job(job, with_threads(site, machine), until)
            _leave_gpu(site)
        else:
            error = _fit_one(job, machine, site, until)
        tune.report({"error": error or ""})

    # A trainer of workers waits for them and computes nothing; but Tune refuses a trial that takes nothing at all.
    needs = _needs(machine, site) if machine.alone else {"memory": TRAINER_BYTES}
    logging.getLogger("ray.tune").setLevel(logging.WARNING)
    tuner = tune.Tuner(
        tune.with_resources(trial, needs),
        param_space={"key": tune.grid_search(list(by_key))},
        tune_config=tune.TuneConfig(
            # A cluster that adds machines is asked for all that may run at once.
            max_concurrent_trials=machine.jobs or len(jobs) if machine.autoscaling else min(machine.jobs or room, room),
            reuse_actors=machine.alone,  # a process goes from job to job: its start takes as long as many a small one
        ),
        run_config=tune.RunConfig(
            storage_path=f"{machine.storage}/tune",
            failure_config=tune.FailureConfig(max_failures=machine.max_failures),
            verbose=0,
        ),
    )
    errors = {}
    for outcome in tuner.fit():
        message = reason(outcome.error) if outcome.error else (outcome.metrics or {}).get("error", "")
        if message and outcome.config:  # a trial that never began has none
            errors[outcome.config["key"]] = message
    return errors


def longest_first(jobs: Sequence[TrainJob]) -> list[TrainJob]:
    """Order a stage's jobs by their epochs and branches, so that no long one is left to run alone at the end."""

    def length(job: TrainJob) -> int:
        return job.train.epochs * max(1, sum(len(set(groups)) for groups in job.model.groups))

    return sorted(jobs, key=length, reverse=True)


def _leave_gpu(site: Site) -> None:
    """Give back GPU memory that torch keeps for later: the process stays, and others may share its GPU."""
    if site.device == "cuda":
        import torch

        torch.cuda.empty_cache()


def _fit_one(job: TrainJob, machine: Machine, site: Site, until: int | None) -> str | None:
    """Run one job by a Ray trainer; give the message it failed with, or None."""
    prepare_environment(machine)
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    logging.getLogger("ray.train").setLevel(logging.WARNING)
    low, high = (usable_ranks(job, most) for most in machine.workers)
    if any(usable_ranks(job, number) != number for number in range(low, high)):
        high = low  # a cluster that grows or shrinks would come by a number that the job can't be shared out to
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"job": job, "site": site, "until": until, "machine": machine},
        torch_config=TorchConfig(timeout_s=machine.stuck_seconds + int(PATIENCE)),  # one may wait for the storage
        scaling_config=ScalingConfig(
            num_workers=high if low == high else (low, high),
            use_gpu=site.device == "cuda",
            resources_per_worker=None if machine.alone else _needs(machine, site),
        ),
        run_config=RunConfig(
            name=job.key,
            storage_path=f"{machine.storage}/ray",
            failure_config=FailureConfig(max_failures=machine.max_failures),
        ),
    )
    try:
        with own_ctrl_c():
            return trainer.fit().return_value
    except TrainingFailedError as error:
        return reason(error)


def _worker(config: Mapping[str, Any]) -> str | None:
    """What every rank runs."""
    import ray.train
    from ray.train.torch import get_device

    job, site, context = config["job"], config["site"], ray.train.get_context()
    # The site says whether there are GPUs; which of a node's GPUs is this rank's, only Ray knows.
    device = str(get_device()) if site.device == "cuda" else site.device
    site = replace(site, rank=context.get_world_rank(), world=context.get_world_size(), device=device)
    if not config["machine"].alone:
        site = with_threads(site, config["machine"])
    return run_job(job, site, config["until"], ray.train.report)
