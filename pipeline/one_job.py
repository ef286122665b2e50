"""One job in the process that trains it, or one rank's part of it, whoever started the process."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from pipeline.allocator import keep_freed_memory
from pipeline.jobs import TrainJob
from pipeline.loop import conclude, train
from pipeline.machine import Machine
from pipeline.shipping import obtain
from pipeline.step import Diverged
from pipeline.training_state import Site

NO_ROOM = "DefaultCPUAllocator"  # torch's RuntimeError where a CPU's memory ends
ONE_VALUE = "more than 1 value per channel"  # its ValueError where batch statistics would be those of one number


def with_threads(site: Site, machine: Machine) -> Site:
    """The same site, once this process of its own has as many threads as it may take."""
    if site.device == "cpu":
        torch.set_num_threads(machine.threads or machine.cpus_per_worker)
    return site


def run_job(
    job: TrainJob, site: Site, until: int | None, report: Callable[[dict[str, Any]], None] | None = None
) -> str | None:
    """Train and conclude a job, or train it up to an epoch. What no restart could mend is an answer: a message."""
    if site.device == "cpu":
        keep_freed_memory()
    datasets = {name: fingerprint for name, fingerprint, *_ in job.datasets}
    site = replace(site, prepared=obtain(datasets, site.prepared, site.storage, site.cache))
    try:
        for record in train(job, site):
            if report is not None:
                report({"epoch": record.epoch, "score": record.score})
            if record.epoch == until:
                return None
        if site.rank == 0:
            conclude(job, site)
    except Diverged as error:
        return f"{error}. {_origin(job)}"
    except (RuntimeError, ValueError) as error:
        message = _explained(job, site, error)
        if message is None:
            raise
        if site.world > 1:  # the other ranks wait for this one: only an error ends them too
            raise RuntimeError(message) from error
        return message
    return None


def _origin(job: TrainJob) -> str:
    """Where the values come from that a diverged job trained with."""
    return (
        f"Here the rate was {job.train.lr:g} (adapted networks have theirs from taps.lrs or adapt.lrs), clip"
        f" {job.train.clip:g}, seed {job.seed}; make check-data shows the range of each task's labels"
    )


def _explained(job: TrainJob, site: Site, error: Exception) -> str | None:
    """torch's error as one line that says where, why and what to do; None for any other."""
    said = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError) or NO_ROOM in said:
        why = _out_of_memory(job, site, said)
    elif ONE_VALUE in said:
        why = _one_value(job, said)
    else:
        return None
    return f"rank {site.rank} of {site.world} on {site.device}: {why}"


def _out_of_memory(job: TrainJob, site: Site, said: str) -> str:
    name, *_, batch = max(job.datasets, key=lambda dataset: dataset[-1])
    key = "train.batch" if len(job.datasets) == 1 else f"datasets.{name}.batch"
    many = job.model.strategy == "taps" and len(job.trained) > 1
    joint = "; joint TAPS holds the layers of all tasks, taps.joint: false trains one at a time" if many else ""
    return (
        f"out of memory in steps of {batch} images, {-(-batch // site.world)} of them on each rank"
        f" ({'. '.join(said.split('. ')[:3])}). Try {key}: {max(1, batch // 2)}; or more workers in machine.yaml, which"
        f" share a batch and change no result{joint}"
    )


def _one_value(job: TrainJob, said: str) -> str:
    images = job.train.norm_images or min(job.batches)
    return (
        f"batch statistics of a single value: a layer's maps have one pixel here, and it sees {images} image at a time"
        f" ({said}). Raise train.batch, the data set's batch or train.norm_images to 2 or more, or take larger images"
        " (datasets.*.size)"
    )
