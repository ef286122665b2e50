"""The training loop against a bare PyTorch loop over the same batches.    python -m benchmarks.loop    (nine minutes)

Both sides train the same network from the same first weights with the same optimiser, batches and losses, and measure
the validation split after each epoch; after one epoch their weights are the same. Ours also loads and mirrors its
batches, watches for a loss that isn't finite and writes history, checkpoint and best weights; the bare loop goes over
batches collected beforehand. Then whole jobs: ours by the runner in Ray Train's local mode, from its start to the
bundle and the test split's metrics; the bare one builds, trains, tests and saves.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from benchmarks.lines import Goal, Line, longer, note, show
from benchmarks.timing import in_turn
from models.branch_tree import BranchTree
from models.sharing import SharedModel
from models.spec import TaskSpec
from pipeline.artifacts import DatasetManifest, write_manifests
from pipeline.checkpoints import kept_weights
from pipeline.config import Config, load
from pipeline.jobs import TrainJob, model_spec, task_specs, train_job
from pipeline.loading import Batch, Feed, in_order
from pipeline.loop import train
from pipeline.machine import Machine
from pipeline.optimise import build_optimiser, learning_rate
from pipeline.preparing import declare, open_source, prepare_dataset
from pipeline.runner import run_jobs
from pipeline.training_state import Site, build, splits_of

IMAGES = 600
ROUNDS, JOBS, JOB_EPOCHS = 30, 4, 4
GOAL = Goal(most=1.05)


def lines() -> Iterator[Line]:
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        config, manifest = _prepare(Path(folder))
        specs = task_specs(config, {"scenes": manifest})
        segmentation = [spec for spec in specs if spec.kind == "segmentation"]
        site = Site(prepared=Path(folder), storage=f"{folder}/runs", channels_last=Machine().channels_last)
        for case, tasks in (("segmentation alone", segmentation), (f"{len(specs)} tasks, all shared", specs)):
            note(case)
            job = _job(config, manifest, tasks)
            _agree(job, site)
            yield _epochs(case, job, site)
        yield _whole_jobs(case, job, site)


def _agree(job: TrainJob, site: Site) -> None:
    """After an epoch both sides have the same weights."""
    site, network = replace(site, storage=f"{site.storage}-alike"), build(job)
    next(_bare(job, site, network))
    next(train(job, site))
    ours = kept_weights(site.folder(job))
    assert ours is not None
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-4)


def _epochs(case: str, job: TrainJob, site: Site) -> Line:
    ours, bare = train(job, site), _bare(job, site, build(job))
    times = in_turn({"ours": lambda: next(ours), "bare": lambda: next(bare)}, ROUNDS)
    return longer(1, f"an epoch: {case}", "a bare PyTorch loop", times["ours"], times["bare"], goal=GOAL)


def _whole_jobs(case: str, job: TrainJob, site: Site) -> Line:
    turn, machine = count(), Machine(threads=1)
    job = replace(job, train=job.train.model_copy(update={"epochs": JOB_EPOCHS}))

    def ours() -> None:
        failed = run_jobs(
            [job], machine.model_copy(update={"storage": f"{site.storage}-{next(turn)}"}), site.prepared, _unheard, None
        )
        assert not failed, failed

    def bare() -> None:
        network = build(job)
        for _ in islice(_bare(job, site, network), JOB_EPOCHS):
            pass
        (test,) = splits_of(job, site.prepared, "test")
        _measure(network, list(in_order(test, job.train.batch)))
        torch.save(network.state_dict(), f"{site.storage}-bare.pt")

    times = in_turn({"ours": ours, "bare": bare}, JOBS)
    what = f"a job of {JOB_EPOCHS} epochs through Ray Train, start and end included: {case}"
    return longer(1, what, "a bare PyTorch script", times["ours"], times["bare"], goal=GOAL)


def _unheard(*_: object) -> None:
    """No line an epoch."""


def _prepare(folder: Path) -> tuple[Config, DatasetManifest]:
    config, machine = load(), Machine()
    scenes = config.datasets["scenes"].model_copy(update={"images": IMAGES})
    settings = config.train.model_copy(update={"epochs": ROUNDS + 1})
    config = config.model_copy(update={"datasets": {"scenes": scenes}, "train": settings})
    source = open_source("scenes", config, machine)
    declared = declare("scenes", config, source)
    manifest = prepare_dataset(declared, source, config, machine, folder, lambda _: None)
    write_manifests(folder, [manifest])
    return config, manifest


def _job(config: Config, manifest: DatasetManifest, tasks: Sequence[TaskSpec]) -> TrainJob:
    tree = BranchTree.shared(len(tasks), config.backbone.locations)
    manifests = {manifest.name: manifest}
    model = model_spec(config, manifests, tasks, tree.groups)
    return train_job(config, manifests, model, name="shared", seed=0, reference={task.name: 1.0 for task in tasks})


def _bare(job: TrainJob, site: Site, network: SharedModel) -> Iterator[dict[str, float]]:
    """What one writes by hand: an epoch over collected batches, then the validation metrics, for ever."""
    settings = job.train
    (training,), (validation,) = (splits_of(job, site.prepared, split) for split in ("train", "val"))
    feed = Feed(splits=[training], weights=[1.0], batches=[settings.batch], augment=settings.augment, seed=job.seed)
    batches = list(feed.loader(0, feed.steps_per_epoch, workers=0, pin=False))
    held_out = list(in_order(validation, settings.batch))
    form = torch.channels_last if site.channels_last else torch.contiguous_format
    network.to(memory_format=form)  # pyright: ignore[reportCallIssue]
    optimiser = build_optimiser(network, settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: learning_rate(settings, step, len(batches)) / settings.lr
    )
    while True:
        network.train()
        for batch in batches:
            outputs = network(batch.images.to(memory_format=form))
            loss = torch.zeros(())
            for name, task in network.tasks.items():
                total, number = task.loss(outputs[name], task.target(batch.labels[task.spec.column_name]))
                loss = loss + task.spec.weight * total / number.clamp(min=1)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
            optimiser.step()
            schedule.step()
        yield _measure(network, held_out)


@torch.no_grad()
def _measure(network: SharedModel, batches: Sequence[Batch]) -> dict[str, float]:
    network.eval()
    metrics = {name: task.metric() for name, task in network.tasks.items()}
    for batch in batches:
        for name, output in network(batch.images).items():
            task = network.tasks[name]
            metrics[name].update(task.predict(output), task.target(batch.labels[task.spec.column_name]))
    return {name: float(metric.compute()) for name, metric in metrics.items()}


if __name__ == "__main__":
    show(lines())
