"""TrainJob -> EpochRecords: the one training loop, pure torch.

`train` is a generator: Ray, tracking, a progress line and a test are consumers of the same records. It goes on from the
job's last whole checkpoint, wherever it was stopped, to the very weights that an uninterrupted run reaches; every
random draw comes from the seed and the step. `conclude` reads the test split once and writes the bundle.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist

from models import bundle
from models.accounting import count_flops, delta_mtl
from models.sharing import SharedModel
from models.tasks import Task
from pipeline.checkpoints import find, kept_weights, load, save, save_best
from pipeline.evaluate import measures_of, network_metrics, predictor
from pipeline.jobs import TrainJob
from pipeline.loading import Feed
from pipeline.optimise import learning_rate
from pipeline.step import CHECK_EVERY, check_finite, take_step, uses_bf16
from pipeline.training_state import EpochRecord, Site, TrainingState, begin, build, splits_of


def train(job: TrainJob, site: Site) -> Iterator[EpochRecord]:
    """Train a job to its end, yielding a record an epoch; epochs that an earlier call finished are yielded again."""
    folder, feed = site.folder(job), _feed(job, site)
    run = begin(job, site)
    _restore(job, site, run)
    yield from run.history
    for epoch in range(len(run.history), job.train.epochs):
        started = time.monotonic() - run.spent
        _epoch(job, site, run, feed, (epoch + 1) * feed.steps_per_epoch, started)
        run.history.append(_record(job, site, run, epoch, feed.steps_per_epoch, started))
        run.spent, run.sums = 0.0, torch.zeros_like(run.sums)
        if site.rank == 0 and run.history[-1] is _best(run.history, job):
            run.best = save_best(folder, run.evaluated.state_dict(), epoch + 1)
        _save(job, site, run)
        if site.rank == 0:
            folder.write_history([asdict(record) for record in run.history])
        yield run.history[-1]


def conclude(job: TrainJob, site: Site) -> dict[str, Any]:
    """Map a trained job to its result: the kept epoch's validation metrics and, read once, the test split's.

    `test` holds the primary metric of each task, `further` what else its kind measures.
    """
    folder, device = site.folder(job), torch.device(site.device)
    best = kept_weights(folder)
    assert best is not None, "conclude comes after train"
    history = [EpochRecord(**record) for record in folder.read_history()]
    kept = _best(history, job)
    network = build(job)
    network.load_state_dict(best)
    network.to(device)
    with TemporaryDirectory() as draft:
        bundle.save(network, Path(draft))
        folder.upload(Path(draft), "bundle")
    tasks, splits = network.tasks, splits_of(job, site.prepared, "test")
    predict = predictor(network.eval(), tasks, device, uses_bf16(job, site))
    test = measures_of(predict, tasks, splits, batches=job.batches, device=device)
    images = torch.zeros(1, 3, *job.model.backbone.size, device=device)
    result = {
        "key": job.key,
        "name": job.name,
        "epoch": kept.epoch,
        "score": kept.score,
        "val": dict(kept.val),
        "test": {name: values[tasks[name].metric_name] for name, values in test.items()},
        "further": {name: _further(tasks[name], values) for name, values in test.items()},
        "weights": dict(kept.weights),
        "params": network.num_params(),
        "flops": count_flops(network, images),
        "seconds": sum(record.seconds for record in history),
    }
    folder.write_result(result)
    return result


def _further(task: Task, values: Mapping[str, float]) -> dict[str, float | None]:
    """What is measured beside the primary metric; None where nothing is labelled that it is defined over."""
    return {one.name: values[one.name] if isfinite(values[one.name]) else None for one in task.further}


def _restore(job: TrainJob, site: Site, run: TrainingState) -> None:
    """Go on from the newest whole checkpoint, where there is one; rank 0 looks for it, and all take the same."""
    folder, saved, names = site.folder(job), None, [""]
    if site.rank == 0:
        folder.clear_drafts()
        saved, damaged = find(folder)
        names = [saved.name if saved else ""]
        if damaged:
            start = f"goes on from step {saved.state['step']}" if saved else "begins anew"
            print(f"{job.name}: {', '.join(damaged)} damaged in {folder.path}; {start}", file=sys.stderr)
    if site.world > 1:
        dist.broadcast_object_list(names, device=torch.device(site.device))
    if names[0]:
        run.restore(saved or load(folder, names[0]), job, site)
    records = [asdict(record) for record in run.history]
    if site.rank == 0 and folder.read_history() != records:
        folder.write_history(records)


def _save(job: TrainJob, site: Site, run: TrainingState) -> None:
    """Leave a checkpoint; every rank takes part."""
    state = run.state(run.total(job, site))
    if site.rank == 0:
        save(site.folder(job), state, run.best, site.checkpoints)


def _epoch(job: TrainJob, site: Site, run: TrainingState, feed: Feed, last: int, started: float) -> None:
    """Take the steps up to `last`; inside a long epoch leave a checkpoint now and then."""
    device, saved_at = torch.device(site.device), time.monotonic()
    batches = iter(feed.loader(run.step, last, workers=site.loader_workers, pin=device.type == "cuda"))
    while run.step < last:
        for group in run.optimiser.param_groups:
            group["lr"] = learning_rate(job.train, run.step, feed.steps_per_epoch) * group["lr_scale"]
        take_step(job, site, run, [batch.to(device) for batch in islice(batches, len(feed.of_step(run.step)))])
        run.step += 1
        if run.step % CHECK_EVERY == 0 or run.step == last:
            # The epoch's end leaves one of its own, with what is measured then.
            due = run.step < last and time.monotonic() - saved_at >= site.checkpoint_seconds
            if check_finite(job, site, run, save=due):
                run.spent = time.monotonic() - started
                _save(job, site, run)
                saved_at = time.monotonic()


def _record(job: TrainJob, site: Site, run: TrainingState, epoch: int, steps: int, started: float) -> EpochRecord:
    sums = run.total(job, site)
    means = dict(zip(job.model.task_names, (sums[0] / sums[1].clamp(min=1)).tolist(), strict=True))
    weights = dict(zip(job.model.task_names, run.weighing.factors().tolist(), strict=True))
    val = network_metrics(
        run.evaluated,
        run.network.tasks,
        run.val,
        batches=job.batches,
        device=torch.device(site.device),
        bf16=uses_bf16(job, site),
        rank=site.rank,
        world=site.world,
    )
    return EpochRecord(
        epoch=epoch + 1,
        step=run.step,
        losses={name: means[name] for name in job.trained},
        weights={name: weights[name] for name in job.trained},
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
        weights=[weight for _, _, weight, _ in job.datasets],
        batches=job.batches,
        augment=job.train.augment,
        seed=job.seed,
        draws=job.draws,
        rank=site.rank,
        world=site.world,
    )
