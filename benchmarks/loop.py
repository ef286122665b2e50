"""The training loop against a bare PyTorch loop over the same batches.    python -m benchmarks.loop    (about a minute)

Both sides train the same network from the same first weights with the same optimiser, batches and losses, and measure
the validation split after each epoch. Ours also loads and mirrors its batches, watches for a loss that isn't finite
and writes history, checkpoint and best weights; the bare loop goes over batches collected beforehand. The claim: at
most 1.10 x its time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from benchmarks.timing import in_turn, ratio
from models.branch_tree import BranchTree
from models.sharing import SharedModel
from models.spec import TaskSpec
from pipeline.artifacts import DatasetManifest
from pipeline.config import Config, Machine, load
from pipeline.jobs import TrainJob, model_spec, task_specs, train_job
from pipeline.loading import Batch, Feed, in_order
from pipeline.loop import train
from pipeline.optimise import build_optimiser
from pipeline.preparing import declare, open_source, prepare_dataset
from pipeline.training_state import Site, build, splits_of

IMAGES = 600
ROUNDS = 5


def main() -> None:
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        config, manifest = _prepare(Path(folder))
        specs = task_specs(config, {"scenes": manifest})
        segmentation = [spec for spec in specs if spec.kind == "segmentation"]
        print(f"loop: 1 thread, batches of {config.train.batch}; fastest of {ROUNDS} epochs, validation included")
        for title, tasks in (("segmentation alone", segmentation), (f"{len(specs)} tasks, all shared", specs)):
            _compare(title, _job(config, manifest, tasks), Site(prepared=Path(folder), storage=f"{folder}/runs"))


def _compare(title: str, job: TrainJob, site: Site) -> None:
    site = replace(site, channels_last=Machine().channels_last)
    ours, bare = train(job, site), _bare(job, site)
    times = in_turn({"ours": lambda: next(ours), "bare": lambda: next(bare)}, ROUNDS)
    shown = ratio(times["ours"], times["bare"])
    print(f"{title}: pipeline.loop {times['ours'].text}; bare PyTorch {times['bare'].text}; ratio {shown}")


def _prepare(folder: Path) -> tuple[Config, DatasetManifest]:
    config, machine = load(), Machine()
    scenes = config.datasets["scenes"].model_copy(update={"images": IMAGES})
    settings = config.train.model_copy(update={"epochs": ROUNDS + 1})
    config = config.model_copy(update={"datasets": {"scenes": scenes}, "train": settings})
    source = open_source("scenes", config, machine)
    declared = declare("scenes", config, source)
    return config, prepare_dataset(declared, source, config, machine, folder, lambda _: None)


def _job(config: Config, manifest: DatasetManifest, tasks: Sequence[TaskSpec]) -> TrainJob:
    tree = BranchTree.shared(len(tasks), config.backbone.locations)
    manifests = {manifest.name: manifest}
    model = model_spec(config, manifests, tasks, tree.groups)
    return train_job(config, manifests, model, name="shared", seed=0, reference={task.name: 1.0 for task in tasks})


def _bare(job: TrainJob, site: Site) -> Iterator[dict[str, float]]:
    """What one writes by hand: an epoch over collected batches, then the validation metrics, for ever."""
    settings = job.train
    (training,), (validation,) = (splits_of(job, site.prepared, split) for split in ("train", "val"))
    feed = Feed(splits=[training], weights=[1.0], batches=[settings.batch], augment=settings.augment, seed=job.seed)
    batches = list(feed.loader(0, feed.steps_per_epoch, workers=0, pin=False))
    held_out = list(in_order(validation, settings.batch))
    form = torch.channels_last if site.channels_last else torch.contiguous_format
    network = build(job).to(memory_format=form)  # pyright: ignore[reportCallIssue]
    optimiser = build_optimiser(network, settings)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.epochs * len(batches))
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
    main()
