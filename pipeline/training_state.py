"""A job's network, optimiser and history at one moment: from first weights, or from a checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.batch_norm import synchronise_batch_norm
from models.loss_weights import LOSS_WEIGHTS, LossWeights
from models.rank_noise import RankRows, share_noise
from models.sharing import SHARING, SharedModel
from pipeline.artifacts import shards
from pipeline.checkpoints import Checkpoint, kept_weights
from pipeline.draws import Draws
from pipeline.gradient_averaging import GradientAveraging, start_alike
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
    storage_stands: bool = False

    def folder(self, job: TrainJob) -> JobFolder:
        return JobFolder(self.storage, job.key, stands=self.storage_stands)


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
    """What changes while a job trains; all of it but how ranks work together stands in a checkpoint.

    `averaging` is of the gradients that `forward` does not average itself. `sums` are this rank's of an epoch's losses,
    and of the batches that they were taken over, by task. `best` names the weights that are kept so far. Schedule,
    sampler and all random draws follow from `step` and the job's seed.
    """

    network: SharedModel
    forward: nn.Module
    weighing: LossWeights
    average: AveragedModel | None
    optimiser: torch.optim.Optimizer
    val: Sequence[Split]
    order: Draws
    averaging: GradientAveraging | None = None
    rows: RankRows | None = None
    step: int = 0
    spent: float = 0.0
    sums: Tensor = field(default_factory=lambda: torch.zeros(0))
    history: list[EpochRecord] = field(default_factory=list)
    best: str = ""

    @property
    def evaluated(self) -> SharedModel:
        """The weights that are measured and kept: the averaged ones where there are."""
        module = self.average.module if self.average is not None else self.network
        assert isinstance(module, SharedModel)
        return module

    def total(self, job: TrainJob, site: Site) -> Tensor:
        """The sums that one rank would have if it had taken every step alone; every rank takes part."""
        sums = self.sums.clone()
        if site.world > 1:
            dist.all_reduce(sums)
        return sums / _counted(job, site)

    def state(self, total: Tensor) -> dict[str, Any]:
        """What a checkpoint holds: nothing that depends on the number of ranks."""
        average = {} if self.average is None else {"average": self.average.state_dict()}
        return average | {
            "network": self.network.state_dict(),
            "weighing": self.weighing.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "spent": self.spent,
            "sums": total,
            "history": [asdict(record) for record in self.history],
        }

    def restore(self, saved: Checkpoint, job: TrainJob, site: Site) -> None:
        state = saved.state
        self.network.load_state_dict(state["network"])
        self.weighing.load_state_dict(state["weighing"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.step, self.spent = state["step"], state["spent"]
        total = state["sums"].to(self.sums.device)
        self.sums = total * _counted(job, site) if site.rank == 0 else torch.zeros_like(total)
        self.history, self.best = [EpochRecord(**record) for record in state["history"]], saved.best


def _counted(job: TrainJob, site: Site) -> int:
    """How often the ranks together count a batch: one that they split is in the sums of each."""
    return site.world if job.draws == 1 else 1


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
    _check_norm_images(job, site, network)
    network = synchronise_batch_norm(network, device, job.train.norm_images).to(device)
    assert isinstance(network, SharedModel)
    rows = RankRows(rank=site.rank, world=site.world) if site.world > 1 and job.draws == 1 else None
    if rows is not None:
        share_noise(network, rows)
    if site.channels_last:
        network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    average = None
    if job.train.ema:
        average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(job.train.ema), use_buffers=True)
    forward: nn.Module = torch.compile(network) if site.compile else network  # pyright: ignore[reportAssignmentType]
    weighing = LOSS_WEIGHTS[job.loss_weights](list(network.tasks.values())).to(device)
    averaging = None
    if site.world > 1:
        forward, averaging = _data_parallel(network, forward, weighing, site.world)
    return TrainingState(
        network=network.train(),
        forward=forward,
        weighing=weighing,
        average=average,
        optimiser=build_optimiser(network, job.train, more=list(weighing.parameters())),
        val=splits_of(job, site.prepared, "val"),
        order=Draws([weight for _, _, weight, _ in job.datasets], job.seed),
        averaging=averaging,
        rows=rows,
        sums=torch.zeros(2, len(job.model.tasks), device=device),
    )


def _data_parallel(
    network: SharedModel, forward: nn.Module, weighing: LossWeights, world: int
) -> tuple[nn.Module, GradientAveraging | None]:
    """Map a network, its forward pass and its loss weights to the pass for many ranks, and what averages the rest."""
    rest = list(weighing.parameters())
    if len({task.spec.dataset for task in network.tasks.values()}) > 1:
        # A step leaves the heads and branches of data sets that it does not draw without a gradient.
        start_alike(network)
        rest = [*network.parameters(), *rest]
    else:
        forward = DistributedDataParallel(forward, broadcast_buffers=False)
    return forward, GradientAveraging(rest, world) if rest else None


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


def _check_norm_images(job: TrainJob, site: Site, network: SharedModel) -> None:
    """ValueError where a batch can't be cut into groups of train.norm_images, or ranks can't share those out evenly."""
    images = job.train.norm_images
    if images is None or not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return
    for name, *_, batch in job.datasets:
        key = f"datasets.{name}.batch (train.batch where it is not set)"
        groups, rest = divmod(batch, images)
        if rest:
            raise ValueError(f"train.norm_images {images} does not divide a batch of {batch}: change it, or {key}")
        if groups % site.world:
            raise ValueError(
                f"train.norm_images {images}: the {site.world} workers of machine.yaml can't share out the {groups}"
                f" groups of a batch of {batch} evenly; set workers to a divisor of {groups}, or change {key}"
            )


def _weights_of(key: str, task: str, site: Site) -> dict[str, Tensor]:
    state = kept_weights(JobFolder(site.storage, key, stands=site.storage_stands))
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
