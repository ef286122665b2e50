"""One training step, the same objective for one rank and for many."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from models.batch_norm import average_statistics
from pipeline.evaluate import tasks_on
from pipeline.jobs import TrainJob
from pipeline.loading import Batch
from pipeline.training_state import Site, TrainingState

CHECK_EVERY = 25  # steps between looks at whether the loss is still finite (each look waits for the GPU)


class Diverged(ValueError):
    """A loss stopped being finite; the message says which, where, and from where one could go on."""


def take_step(job: TrainJob, site: Site, run: TrainingState, batches: Sequence[Batch]) -> None:
    """One step on the mean over its draws of their objectives; clip, optimiser and averaged weights act once.

    `batches` are this rank's: its rows of a single draw, or the whole batches of its share of several.
    """
    run.optimiser.zero_grad(set_to_none=True)
    if run.averaging is not None:
        run.averaging.begin(_drawn(job, run))
    for place, batch in enumerate(batches):
        # dropout's seed: the same on resuming, and for all ranks of a draw, wherever it is taken
        draw = site.rank + place * site.world if job.draws > 1 else 0
        _seed((job.seed * 1_000_003 + run.step) * 4099 + draw, site)
        if run.rows is not None:
            run.rows.images = next(images for name, *_, images in job.datasets if name == batch.dataset)
        last = place + 1 == len(batches)
        if run.averaging is not None:
            run.averaging.draw(batch.dataset, last=last)
        with _averaging(run.forward, last=last):
            (_objective(job, site, run, batch) / len(batches)).backward()
    if run.averaging is not None:
        run.averaging.finish()
    if site.world > 1:
        average_statistics(run.network)
    if job.train.clip:
        nn.utils.clip_grad_norm_(run.network.parameters(), job.train.clip)
    run.optimiser.step()
    run.network.finish_step()
    if run.average is not None:
        _follow(run.average, run.network)


def _seed(seed: int, site: Site) -> None:
    """As `torch.manual_seed`, which on a machine without an accelerator notes each seed for one, a stack trace with it:
    a millisecond a step."""
    torch.default_generator.manual_seed(seed)
    if site.device.startswith("cuda"):
        torch.cuda.manual_seed(seed)


def _objective(job: TrainJob, site: Site, run: TrainingState, batch: Batch) -> Tensor:
    """The weighed losses + λ x penalty of one draw, each loss the mean over the labels of all that it holds."""
    names = tasks_on(batch.dataset, run.network.tasks)
    images = batch.images.to(memory_format=torch.channels_last) if site.channels_last else batch.images
    with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=uses_bf16(job, site)):
        outputs = run.forward(images, names)
    tasks = [run.network.tasks[name] for name in names]
    pairs = [task.loss(outputs[task.spec.name], task.target(batch.labels[task.spec.column_name])) for task in tasks]
    sums, counts = torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs]).detach()
    share = torch.ones((), device=sums.device)
    if site.world > 1 and job.draws == 1:
        images_of_rank = counts.new_tensor([len(batch)])
        together = torch.cat([counts, images_of_rank])
        dist.all_reduce(together)
        counts, all_images = together.split([len(counts), 1])
        # Ranks average their gradients, so a rank's share of a global mean is scaled up by the number of ranks.
        sums, share = sums * site.world, (images_of_rank * site.world / all_images)[0]
    losses = sums / torch.where(counts > 0, counts, 1)  # a count may be a sum of small weights
    places = [job.model.task_names.index(name) for name in names]
    columns = torch.tensor(places, device=run.sums.device)
    run.sums[0].index_add_(0, columns, losses.detach())
    run.sums[1].index_add_(0, columns, (counts > 0).to(run.sums.dtype))
    objective = run.weighing(losses, places)
    if job.lam and len(run.history) >= job.lam_warmup:
        objective = objective + job.lam * share * run.network.penalty(names)
    return objective


def _drawn(job: TrainJob, run: TrainingState) -> set[str]:
    """The data sets that the ranks together draw for the next step."""
    numbers = range(run.step * job.draws, (run.step + 1) * job.draws)
    return {job.datasets[run.order.dataset(number)[0]][0] for number in numbers}


def _averaging(forward: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Ranks average what a step's backward passes have added up when the last one runs, not at each."""
    return forward.no_sync() if isinstance(forward, DistributedDataParallel) and not last else nullcontext()


def _follow(average: AveragedModel, network: nn.Module) -> None:
    """Take a step into the averaged weights; a mean of whole numbers, such as positions in a table, is none of them."""
    average.update_parameters(network)
    for mine, theirs in zip(average.module.buffers(), network.buffers(), strict=True):
        if not mine.is_floating_point():
            mine.copy_(theirs)


def check_finite(job: TrainJob, site: Site, run: TrainingState, *, save: bool = False) -> bool:
    """Raise Diverged on all ranks where a loss is not finite on one; map a wish to `save` on one to that of all.

    A rank that acted alone would leave the others waiting for it.
    """
    flags = torch.cat([~torch.isfinite(run.sums[0]), torch.tensor([save], device=run.sums.device)]).int()
    if site.world > 1:
        dist.all_reduce(flags)
    *bad, wanted = flags.tolist()
    if any(bad):
        names = [name for name, flag in zip(job.model.task_names, bad, strict=True) if flag]
        good = f"epoch {len(run.history)} in {site.folder(job).path}" if run.history else "none"
        raise Diverged(
            f"{job.name}: the loss of {', '.join(names)} is not finite at step {run.step} (within the last"
            f" {CHECK_EVERY} steps); last good checkpoint: {good}. Try a lower train.lr or train.clip"
        )
    return bool(wanted)


def uses_bf16(job: TrainJob, site: Site) -> bool:
    return job.train.precision == "bf16" or (job.train.precision == "auto" and site.device.startswith("cuda"))
