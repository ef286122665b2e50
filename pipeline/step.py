"""One training step, the same objective for one rank and for many."""

import torch
import torch.distributed as dist
from torch import nn

from pipeline.evaluate import tasks_on
from pipeline.jobs import TrainJob
from pipeline.loading import Batch
from pipeline.training_state import Site, TrainingState

CHECK_EVERY = 25  # steps between looks at whether the loss is still finite (each look waits for the GPU)


class Diverged(ValueError):
    """A loss stopped being finite; the message says which, where, and from where one could go on."""


def take_step(job: TrainJob, site: Site, run: TrainingState, batch: Batch) -> None:
    """One step on the weighed losses + λ x penalty, each loss the mean over the global batch's labels."""
    names = tasks_on(batch.dataset, run.network.tasks)
    images = batch.images.to(memory_format=torch.channels_last) if site.channels_last else batch.images
    with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=uses_bf16(job, site)):
        outputs = run.forward(images, names)
    tasks = [run.network.tasks[name] for name in names]
    pairs = [task.loss(outputs[task.spec.name], task.target(batch.labels[task.spec.column_name])) for task in tasks]
    sums, counts = torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs]).detach()
    if site.world > 1:
        dist.all_reduce(counts)
    # DDP averages gradients over ranks, so a rank's share of a global mean is scaled up by the number of ranks.
    losses = sums * site.world / counts.clamp(min=1)
    places = [job.model.task_names.index(name) for name in names]
    objective = run.weighing(losses, places)
    if job.lam and len(run.history) >= job.lam_warmup:
        objective = objective + job.lam * run.network.penalty(names)
    run.optimiser.zero_grad(set_to_none=True)
    objective.backward()
    if site.world > 1:
        _average_gradients(run.weighing, site.world)
    if job.train.clip:
        nn.utils.clip_grad_norm_(run.network.parameters(), job.train.clip)
    run.optimiser.step()
    if run.average is not None:
        run.average.update_parameters(run.network)
    columns = torch.tensor(places, device=run.sums.device)
    run.sums[0].index_add_(0, columns, losses.detach())
    run.sums[1].index_add_(0, columns, (counts > 0).to(run.sums.dtype))


def _average_gradients(module: nn.Module, world: int) -> None:
    """What DDP does for the network it wraps."""
    for parameter in module.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= world


def check_finite(job: TrainJob, site: Site, run: TrainingState) -> None:
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


def uses_bf16(job: TrainJob, site: Site) -> bool:
    return job.train.precision == "bf16" or (job.train.precision == "auto" and site.device.startswith("cuda"))
