"""A job's network, optimiser and history at one moment: from first weights, or from a checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.batch_norm import synchronise_batch_norm
from models.loss_weights import LOSS_WEIGHTS, LossWeights
from models.sharing import SHARING, SharedModel
from pipeline.artifacts import shards
from pipeline.jobs import TrainJob
from pipeline.loading import Split
from pipeline.optimise import build_optimiser
from pipeline.storage import JobFolder


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where a job runs: nothing here changes its result."""

    prepared: Path
    storage: str
    rank: int = 0
    world: int = 1
    device: str = "cpu"
    loader_workers: int = 0
    channels_last: bool = False
    compile: bool = False
    checkpoint_seconds: float = 300.0
    checkpoints: int = 2
    cache: str = "~/.cache/coppice"

    def folder(self, job: TrainJob) -> JobFolder:
        return JobFolder(self.storage, job.key)


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One finished epoch: mean training losses and their factors by task, validation metrics, the score that picks."""

    epoch: int
    step: int
    losses: Mapping[str, float]
    weights: Mapping[str, float]
    val: Mapping[str, float]
    score: float
    lr: float
    seconds: float


@dataclass(kw_only=True)
class TrainingState:
    """What changes while a job trains; all of it but the network's forward wrapper stands in a checkpoint."""

    network: SharedModel
    forward: nn.Module
    weighing: LossWeights
    average: AveragedModel | None
    optimiser: torch.optim.Optimizer
    val: Sequence[Split]
    step: int = 0
    spent: float = 0.0
    sums: Tensor = field(default_factory=lambda: torch.zeros(0))
    history: list[EpochRecord] = field(default_factory=list)

    @property
    def evaluated(self) -> SharedModel:
        """The weights that are measured and kept: the averaged ones where there are."""
        module = self.average.module if self.average is not None else self.network
        assert isinstance(module, SharedModel)
        return module

    def state(self) -> dict[str, Any]:
        average = {} if self.average is None else {"average": self.average.state_dict()}
        return average | {
            "network": self.network.state_dict(),
            "weighing": self.weighing.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "spent": self.spent,
            "sums": self.sums,
            "history": [asdict(record) for record in self.history],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.weighing.load_state_dict(state["weighing"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.step, self.spent = state["step"], state["spent"]
        self.sums = state["sums"].to(self.sums.device)
        self.history = [EpochRecord(**record) for record in state["history"]]


def build(job: TrainJob) -> SharedModel:
    """Map a job to its network with its first weights, which depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        return SHARING[job.model.strategy](job.model)


def begin(job: TrainJob, site: Site) -> TrainingState:
    """Map a job to its state before the first step. ValueError where its draws can't be taken one by one."""
    device = torch.device(site.device)
    network = build(job)
    if job.draws > 1:
        _refuse_batch_statistics(network)
    if job.start:
        network.start_from({task: _weights_of(key, task, site) for task, key in job.start})
    network = synchronise_batch_norm(network, device).to(device)
    assert isinstance(network, SharedModel)
    if site.channels_last:
        network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    average = None
    if job.train.ema:
        average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(job.train.ema), use_buffers=True)
    forward: nn.Module = torch.compile(network) if site.compile else network  # pyright: ignore[reportAssignmentType]
    if site.world > 1:
        # A step leaves the heads and branches of data sets that it does not draw without a gradient.
        some = len({task.dataset for task in job.model.tasks}) > 1
        forward = DistributedDataParallel(forward, find_unused_parameters=some, broadcast_buffers=False)
    weighing = LOSS_WEIGHTS[job.loss_weights](list(network.tasks.values())).to(device)
    return TrainingState(
        network=network.train(),
        forward=forward,
        weighing=weighing,
        average=average,
        optimiser=build_optimiser(network, job.train, more=list(weighing.parameters())),
        val=splits_of(job, site.prepared, "val"),
        sums=torch.zeros(2, len(job.model.tasks), device=device),
    )


def _refuse_batch_statistics(network: SharedModel) -> None:
    """Ranks of one step run different heads on different data: they can't share a layer's statistics."""
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            part, place, *_ = name.split(".")
            head = f"the head of task {network.spec.task_names[int(place)]}" if part == "heads" else None
            raise ValueError(
                f"moe.sampling: per_rank draws a data set for every rank, but {head or network.spec.backbone.name} has"
                f" layers with batch statistics ({name}); "
                + ("give the task head: upernet" if head else "take a backbone without (Swin, DaViT, ConvNeXt, ViT)")
                + ", or set moe.sampling: per_step"
            )


def _weights_of(key: str, task: str, site: Site) -> dict[str, Tensor]:
    state = JobFolder(site.storage, key).read_state("best.pt")
    if state is None:
        raise ValueError(f"the weights of task {task!r} to start from, job {key}, are not in {site.storage}")
    return state


def splits_of(job: TrainJob, prepared: Path, split: str) -> list[Split]:
    """One split of each of a job's data sets, with the columns of the job's tasks alone."""
    return [
        Split(
            dataset=name,
            paths=shards(name, split, prepared),
            size=next((task.size for task in tasks if task.size), job.model.backbone.size),
            columns={task.column_name: task.column for task in tasks},
        )
        for name, tasks in (
            (name, [task for task in job.model.tasks if task.dataset == name]) for name, *_ in job.datasets
        )
    ]
