"""One job in the process that trains it, or one rank's part of it, whoever started the process."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from pipeline.config import Machine
from pipeline.jobs import TrainJob
from pipeline.loop import conclude, train
from pipeline.shipping import obtain
from pipeline.step import Diverged
from pipeline.training_state import Site


def with_threads(site: Site, machine: Machine) -> Site:
    """The same site, once this process of its own has as many threads as it may take."""
    if site.device == "cpu":
        torch.set_num_threads(machine.threads or machine.cpus_per_worker)
    return site


def run_job(
    job: TrainJob, site: Site, until: int | None, report: Callable[[dict[str, Any]], None] | None = None
) -> str | None:
    """Train and conclude a job, or train it up to an epoch. A diverged one is an answer; no restart could mend it."""
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
        return str(error)
    return None
