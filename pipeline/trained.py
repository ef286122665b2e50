"""Networks of finished jobs, looked at by the process that asked for them: loaded, measured."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from models.accounting import count_flops, count_params
from models.bundle import load_network
from models.sharing import SharedModel
from models.sharing.moe import MoeModel
from pipeline.artifacts import DatasetManifest
from pipeline.config import Config
from pipeline.evaluate import network_metrics
from pipeline.jobs import train_job
from pipeline.machine import Machine
from pipeline.step import uses_bf16
from pipeline.storage import JobFolder
from pipeline.training_state import Site, splits_of


def trained_network(key: str, machine: Machine) -> SharedModel:
    """Map the key of a finished job to its network."""
    with TemporaryDirectory() as draft:
        JobFolder(machine.storage, key).download("bundle", Path(draft))
        return load_network(Path(draft))


def trained_experts(key: str, machine: Machine) -> MoeModel:
    """Map the key of a finished job to its network with experts."""
    network = trained_network(key, machine)
    assert isinstance(network, MoeModel)
    return network


def without_heads(network: SharedModel) -> int:
    """Map a network to the number of its parameters, those of heads not counted (MTHL, Tab. 1)."""
    return network.num_params() - count_params(network.heads)


def task_flops(network: SharedModel) -> dict[str, int]:
    """Map a network to the FLOPs of each of its tasks alone, on one image of the task's own size."""
    size = network.spec.backbone.size
    return {
        task.name: count_flops(network, torch.zeros(1, 3, *(task.size or size)), (task.name,))
        for task in network.spec.tasks
    }


def own_device(machine: Machine) -> torch.device:
    """This process's device; what GPUs a cluster has are its jobs'."""
    return torch.device("cuda" if machine.gpu is not False and torch.cuda.is_available() else "cpu")


def measure_on_test(
    network: SharedModel,
    config: Config,
    manifests: Mapping[str, DatasetManifest],
    machine: Machine,
    prepared: Path,
) -> dict[str, float]:
    """Map a network to the metric of each of its tasks on the test split.

    It is measured as the end of a job measures it, where this process has the device that jobs have; without their GPU
    it is in float32, and differs by rounding from what bf16 gave.
    """
    nothing = dict.fromkeys(network.tasks, 0.0)
    job = train_job(config, manifests, network.spec, name="measured", seed=config.seed, reference=nothing)
    device = own_device(machine)
    return network_metrics(
        network.to(device),
        network.tasks,
        splits_of(job, prepared, "test"),
        batches=job.batches,
        device=device,
        bf16=uses_bf16(job, Site(prepared=prepared, storage=machine.storage, device=str(device))),
    )
