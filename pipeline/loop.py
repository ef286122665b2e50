"""TrainJob -> EpochRecords: the one training loop, pure torch.

`train` is a generator: Ray, tracking, a progress line and a test are consumers of the same records. It goes on from the
job's last checkpoint, wherever it was stopped, to the very weights that an uninterrupted run reaches; every random draw
comes from the seed and the step. `conclude` reads the test split once and writes the bundle.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models import bundle
from models.accounting import count_flops, count_params, delta_mtl
from models.batch_norm import synchronise_batch_norm
from models.sharing import SHARING, SharedModel
from pipeline.artifacts import shards
from pipeline.evaluate import network_metrics, tasks_on
from pipeline.jobs import TrainJob
from pipeline.loading import Batch, Feed, Split
from pipeline.optimise import build_optimiser, learning_rate
from pipeline.storage import JobFolder

CHECK_EVERY = 25  # steps between looks at whether the loss is still finite (each look waits for the GPU)
CHECKPOINT_SECONDS = 300.0


class Diverged(ValueError):
    """A loss stopped being finite; the message says which, where, and from where one could go on."""


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

    def folder(self, job: TrainJob) -> JobFolder:
        return JobFolder(self.storage, job.key)


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One finished epoch: mean training losses by task, validation metrics by task, the score that picks an epoch."""

    epoch: int
    step: int
    losses: Mapping[str, float]
    val: Mapping[str, float]
    score: float
    lr: float
    seconds: float


@dataclass(kw_only=True)
class _Run:
    """What changes while a job trains; all of it but the network's forward wrapper stands in a checkpoint."""

    network: SharedModel
    forward: nn.Module
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
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "spent": self.spent,
            "sums": self.sums,
            "history": [asdict(record) for record in self.history],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.step, self.spent = state["step"], state["spent"]
        self.sums = state["sums"].to(self.sums.device)
        self.history = [EpochRecord(**record) for record in state["history"]]


def train(job: TrainJob, site: Site) -> Iterator[EpochRecord]:
    """Train a job to its end, yielding a record an epoch; epochs that an earlier call finished are yielded again."""
    folder, feed = site.folder(job), _feed(job, site)
    run = _start(job, site)
    saved = folder.read_state("checkpoint.pt")
    if saved is not None:
        run.restore(saved)
    yield from run.history
    for epoch in range(len(run.history), job.train.epochs):
        started = time.monotonic() - run.spent
        _epoch(job, site, run, feed, (epoch + 1) * feed.steps_per_epoch, started)
        run.history.append(_record(job, site, run, epoch, feed.steps_per_epoch, started))
        run.spent, run.sums = 0.0, torch.zeros_like(run.sums)
        if site.rank == 0:
            if run.history[-1] is _best(run.history, job):
                folder.write_state("best.pt", run.evaluated.state_dict())
            folder.write_history([asdict(record) for record in run.history])
            folder.write_state("checkpoint.pt", run.state())
        yield run.history[-1]


def conclude(job: TrainJob, site: Site) -> dict[str, Any]:
    """Map a trained job to its result: the kept epoch's validation metrics and, read once, the test split's."""
    folder, device = site.folder(job), torch.device(site.device)
    best = folder.read_state("best.pt")
    assert best is not None, "conclude comes after train"
    history = [EpochRecord(**record) for record in folder.read_history()]
    kept = _best(history, job)
    network = build(job)
    network.load_state_dict(best)
    network.to(device)
    with TemporaryDirectory() as draft:
        bundle.save(network, Path(draft))
        folder.upload(Path(draft), "bundle")
    test = network_metrics(
        network,
        network.tasks,
        splits_of(job, site.prepared, "test"),
        batch=job.train.batch,
        device=device,
        bf16=_bf16(job, site),
    )
    images = torch.zeros(1, 3, *job.model.backbone.size, device=device)
    result = {
        "key": job.key,
        "name": job.name,
        "epoch": kept.epoch,
        "score": kept.score,
        "val": dict(kept.val),
        "test": test,
        "params": count_params(network),
        "flops": count_flops(network, images),
        "seconds": sum(record.seconds for record in history),
    }
    folder.write_result(result)
    return result


def build(job: TrainJob) -> SharedModel:
    """Map a job to its network with its first weights, which depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        return SHARING[job.model.strategy](job.model)


def _start(job: TrainJob, site: Site) -> _Run:
    device = torch.device(site.device)
    network = synchronise_batch_norm(build(job), device).to(device)
    assert isinstance(network, SharedModel)
    if site.channels_last:
        network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    average = None
    if job.train.ema:
        average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(job.train.ema), use_buffers=True)
    forward: nn.Module = torch.compile(network) if site.compile else network  # pyright: ignore[reportAssignmentType]
    if site.world > 1:
        # With several data sets a step leaves the other sets' heads and branches without a gradient.
        several = len(job.datasets) > 1
        forward = DistributedDataParallel(forward, find_unused_parameters=several, broadcast_buffers=False)
    return _Run(
        network=network.train(),
        forward=forward,
        average=average,
        optimiser=build_optimiser(network, job.train),
        val=splits_of(job, site.prepared, "val"),
        sums=torch.zeros(2, len(job.model.tasks), device=device),
    )


def _epoch(job: TrainJob, site: Site, run: _Run, feed: Feed, last: int, started: float) -> None:
    """Take the steps up to `last`; every few minutes leave a checkpoint inside a long epoch."""
    device, saved_at = torch.device(site.device), time.monotonic()
    loader = feed.loader(run.step, last, workers=site.loader_workers, pin=device.type == "cuda")
    for batch in loader:
        for group in run.optimiser.param_groups:
            group["lr"] = learning_rate(job.train, run.step, feed.steps_per_epoch)
        torch.manual_seed((job.seed * 1_000_003 + run.step) * 4099 + site.rank)  # dropout's draws, the same on resuming
        _step(job, site, run, batch.to(device))
        run.step += 1
        if run.step % CHECK_EVERY == 0 or run.step == last:
            _check_finite(job, site, run)
            if site.rank == 0 and time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                run.spent = time.monotonic() - started
                site.folder(job).write_state("checkpoint.pt", run.state())
                saved_at = time.monotonic()


def _step(job: TrainJob, site: Site, run: _Run, batch: Batch) -> None:
    """One step on sum_t weight_t * loss_t + penalty, each loss the mean over the global batch's labels."""
    names = tasks_on(batch.dataset, run.network.tasks)
    images = batch.images.to(memory_format=torch.channels_last) if site.channels_last else batch.images
    with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=_bf16(job, site)):
        outputs = run.forward(images, names)
    tasks = [run.network.tasks[name] for name in names]
    pairs = [task.loss(outputs[task.spec.name], task.target(batch.labels[task.spec.column_name])) for task in tasks]
    sums, counts = torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs]).detach()
    if site.world > 1:
        dist.all_reduce(counts)
    # DDP averages gradients over ranks, so a rank's share of a global mean is scaled up by the number of ranks.
    losses = sums * site.world / counts.clamp(min=1)
    weights = losses.new_tensor([task.spec.weight for task in tasks])
    objective = (losses * weights).sum() + run.network.penalty()
    run.optimiser.zero_grad(set_to_none=True)
    objective.backward()
    if job.train.clip:
        nn.utils.clip_grad_norm_(run.network.parameters(), job.train.clip)
    run.optimiser.step()
    if run.average is not None:
        run.average.update_parameters(run.network)
    columns = torch.tensor([job.model.task_names.index(name) for name in names], device=run.sums.device)
    run.sums[0].index_add_(0, columns, losses.detach())
    run.sums[1].index_add_(0, columns, (counts > 0).to(run.sums.dtype))


def _check_finite(job: TrainJob, site: Site, run: _Run) -> None:
    bad = (~torch.isfinite(run.sums[0])).int()
    if site.world > 1:
        dist.all_reduce(bad)  # a rank that left alone would leave the others waiting for it
    if bool(bad.any()):
        names = [name for name, flag in zip(job.model.task_names, bad.tolist(), strict=True) if flag]
        good = f"epoch {len(run.history)} in {site.folder(job).path}" if run.history else "none"
        raise Diverged(
            f"{job.name}: the loss of {', '.join(names)} is not finite at step {run.step} (within the last"
            f" {CHECK_EVERY} steps); last good checkpoint: {good}. Try a lower train.lr or train.clip"
        )


def _record(job: TrainJob, site: Site, run: _Run, epoch: int, steps: int, started: float) -> EpochRecord:
    sums = run.sums.clone()
    if site.world > 1:
        dist.all_reduce(sums[0])
        sums[0] /= site.world
    means = sums[0] / sums[1].clamp(min=1)
    val = network_metrics(
        run.evaluated,
        run.network.tasks,
        run.val,
        batch=job.train.batch,
        device=torch.device(site.device),
        bf16=_bf16(job, site),
        rank=site.rank,
        world=site.world,
    )
    return EpochRecord(
        epoch=epoch + 1,
        step=run.step,
        losses=dict(zip(job.model.task_names, means.tolist(), strict=True)),
        val=val,
        score=_score(job, run.network, val),
        lr=learning_rate(job.train, (epoch + 1) * steps - 1, steps),
        seconds=time.monotonic() - started,
    )


def _score(job: TrainJob, network: SharedModel, val: Mapping[str, float]) -> float:
    """One number to pick an epoch by: a task's own metric, or for several Δ_MTL on validation; higher is better."""
    higher = {name: task.higher_is_better for name, task in network.tasks.items()}
    if len(val) == 1:
        ((name, value),) = val.items()
        return value if higher[name] else -value
    return delta_mtl(val, dict(job.reference), higher)


def _best(history: Sequence[EpochRecord], job: TrainJob) -> EpochRecord:
    """The epoch whose weights are kept; of equals the first, and an undefined score never wins over a number."""
    if job.train.select == "last":
        return history[-1]
    return max(history, key=lambda record: record.score if record.score == record.score else -float("inf"))


def _feed(job: TrainJob, site: Site) -> Feed:
    return Feed(
        splits=splits_of(job, site.prepared, "train"),
        weights=[weight for _, _, weight in job.datasets],
        batch=job.train.batch,
        augment=job.train.augment,
        seed=job.seed,
        rank=site.rank,
        world=site.world,
    )


def splits_of(job: TrainJob, prepared: Path, split: str) -> list[Split]:
    """One split of each of a job's data sets, with the columns of the job's tasks alone."""
    return [
        Split(
            dataset=name,
            paths=shards(name, split, prepared),
            size=job.model.backbone.size,
            columns={task.column_name: task.column for task in job.model.tasks if task.dataset == name},
        )
        for name, _, _ in job.datasets
    ]


def _bf16(job: TrainJob, site: Site) -> bool:
    return job.train.precision == "bf16" or (job.train.precision == "auto" and site.device.startswith("cuda"))
