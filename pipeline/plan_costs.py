"""What jobs would cost: FLOPs by network and data set, seconds by this machine's measured speed, bytes of what is kept.

Networks are built on torch's "meta" device, which knows shapes and holds no weights.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch

from models.accounting import count_params
from models.branch_tree import BranchTree
from models.bundle_files import offline
from models.sharing import SHARING
from models.sharing.branched import BranchedModel, block_costs
from models.spec import ModelSpec
from pipeline.artifacts import DatasetManifest
from pipeline.budgets import Costs
from pipeline.config import Config
from pipeline.jobs import TrainJob, model_spec, task_specs
from pipeline.machine import Machine
from pipeline.plan_jobs import Planned, stages_of

BACKWARD = 2  # a backward pass takes about twice a forward one
STATES = {"sgd": 1, "adamw": 2, "lamb": 2}  # numbers an optimiser keeps for a weight
LEAST_SIDE, WHOLE = (
    64,
    32,
)  # pixels of the smallest image that the speed is measured on, and what sides are multiples of
SECONDS = 6.0

Manifests = Mapping[str, DatasetManifest]


@dataclass(frozen=True, kw_only=True)
class ImageCosts:
    """FLOPs of one image of a data set in one forward pass: of each block of the backbone, of each of its tasks."""

    blocks: Sequence[int]
    heads: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Speed:
    """FLOPs a second of forward and backward passes, and where and on what they were measured."""

    flops: float
    where: str


def shared_spec(config: Config, manifests: Manifests) -> ModelSpec:
    """The fully shared tree's network, without trained weights."""
    tasks = task_specs(config, manifests)
    groups = ((0,) * len(tasks),) * config.backbone.locations
    return offline(model_spec(config, manifests, tasks, groups))


def unit_costs(spec: ModelSpec) -> dict[str, Costs]:
    """Costs of each block and each head, by unit."""
    with torch.device("meta"):
        return {unit: block_costs(spec, unit) for unit in ("params", "flops")}


def image_costs(spec: ModelSpec, manifests: Manifests) -> dict[str, ImageCosts]:
    """Map the shared network to the FLOPs of an image of each data set, at that set's size."""
    by_size: dict[tuple[int, int], list[str]] = {}
    for name in dict.fromkeys(task.dataset for task in spec.tasks):
        by_size.setdefault(manifests[name].size, []).append(name)
    found = {}
    for size, names in by_size.items():
        part = _on(spec, names, size)
        with torch.device("meta"):
            blocks, heads = block_costs(part, "flops")
        for name in names:
            mine = zip(part.tasks, heads, strict=True)
            own = {task.name: head for task, head in mine if task.dataset == name}
            found[name] = ImageCosts(blocks=blocks, heads=own)
    return found


def network_params(spec: ModelSpec) -> int:
    """All parameters that a network trains or keeps."""
    with torch.device("meta"):
        return count_params(SHARING[spec.strategy](offline(spec)))


def steps_of(job: TrainJob, manifests: Manifests) -> int | None:
    """The steps of an epoch, as `pipeline.loading.Feed` counts them; None where a data set is not known."""
    counts = [manifests[name].counts for name, *_ in job.datasets]
    if not all(counts):
        return None
    whole = sum(count["train"] // batch for count, batch in zip(counts, job.batches, strict=True))
    return max(1, whole // job.draws)


def job_flops(item: Planned, manifests: Manifests, costs: Mapping[str, ImageCosts]) -> float | None:
    """FLOPs of training and evaluating a job; routers and what adapters add are left out."""
    job, steps = item.job, steps_of(item.job, manifests)
    if steps is None:
        return None
    total = sum(weight for *_, weight, _ in job.datasets)
    flops = 0.0
    for name, _, weight, batch in job.datasets:
        image, counts = _image_flops(job.model, name, costs[name], item.between), manifests[name].counts
        drawn = steps * job.draws * batch * weight / total
        flops += image * (job.train.epochs * ((1 + BACKWARD) * drawn + counts["val"]) + counts["test"])
    return flops


def _image_flops(spec: ModelSpec, dataset: str, costs: ImageCosts, between: float) -> float:
    """One forward pass of the tasks on a data set."""
    places = [place for place, task in enumerate(spec.tasks) if task.dataset == dataset]
    if spec.strategy == "branched":
        paths = [len({row[place] for place in places}) for row in spec.groups]
    else:
        paths = [len(places) if spec.strategy in ("taps", "adapted") else 1] * len(costs.blocks)
    blocks = [count + between * (len(places) - count) for count in paths]
    heads = sum(costs.heads[spec.tasks[place].name] for place in places)
    return sum(count * block for count, block in zip(blocks, costs.blocks, strict=True)) + heads


def kept_bytes(jobs: Sequence[Planned], costs: Mapping[str, Costs], checkpoints: int) -> int:
    """What all jobs keep; networks of a stage that are alike are counted like the first of them."""
    kept = 0
    for labels in stages_of(jobs).values():
        for items in labels.values():
            params = [_tree_params(item, costs) for item in items if item.stage == "branched"] or [
                network_params(items[0].job.model)
            ] * len(items)
            kept += sum(job_bytes(item, count, checkpoints) for item, count in zip(items, params, strict=True))
    return kept


def _tree_params(item: Planned, costs: Mapping[str, Costs]) -> int:
    """The parameters of a tree, or of one within a budget."""
    size = BranchTree(item.job.model.groups).budget(*costs["params"])
    split = BranchTree.split(len(item.job.model.tasks), len(item.job.model.groups)).budget(*costs["params"])
    return round(size + item.between * (split - size))


def job_bytes(item: Planned, params: int, checkpoints: int) -> int:
    """What a job keeps: so many checkpoints, two epochs' weights that they call the best, its bundle and a copy."""
    train = item.job.train
    return 4 * params * (checkpoints * (1 + STATES[train.optimiser] + bool(train.ema)) + 4)


def measured_speed(
    config: Config, spec: ModelSpec, manifests: Manifests, machine: Machine, seconds: float = SECONDS
) -> Speed:
    """Time forward and backward passes of the shared network on the data set with most tasks, for some seconds.

    On a GPU with the study's batch, halved until it fits; on a CPU with two images, larger and then more while there is
    time.
    """
    names = [task.dataset for task in spec.tasks]
    name = max(dict.fromkeys(names), key=names.count)
    if machine.threads:
        torch.set_num_threads(machine.threads)
    size, batch = manifests[name].size, config.datasets[name].batch or config.train.batch
    if torch.cuda.is_available() and machine.gpu is not False:
        return _on_gpu(_on(spec, [name], size), batch, config.train.precision != "fp32", seconds)
    return _on_cpu([(_on(spec, [name], part), images) for part, images in _growing(size, batch)], seconds)


def _growing(size: tuple[int, int], batch: int) -> list[tuple[tuple[int, int], int]]:
    """Ever larger steps up to the study's own: the image's size doubles, then the number of images."""
    sizes = [tuple(side // part // WHOLE * WHOLE for side in size) for part in (8, 4, 2)]
    batches = [2**power for power in range(1, batch.bit_length())] or [batch]
    small = [((height, width), batches[0]) for height, width in sizes if min(height, width) >= LEAST_SIDE]
    return [*small, *((size, images) for images in batches)]


def _on_cpu(steps: Sequence[tuple[ModelSpec, int]], left: float) -> Speed:
    place = 0
    while True:
        spec, batch = steps[place]
        speed, took = _timed(spec, batch, "cpu", bf16=False, seconds=0.0)
        left -= 2 * took
        place += 1
        if place == len(steps) or 8 * took > left:
            return speed


def _on_gpu(spec: ModelSpec, batch: int, bf16: bool, seconds: float) -> Speed:
    while True:
        try:
            return _timed(spec, batch, "cuda", bf16=bf16, seconds=seconds)[0]
        except torch.OutOfMemoryError:
            if batch <= 2:
                raise ValueError("one step of two images doesn't fit this GPU; use --no-timing") from None
            batch //= 2


def _timed(spec: ModelSpec, batch: int, device: str, *, bf16: bool, seconds: float) -> tuple[Speed, float]:
    """The speed over whole steps, and the seconds of one."""
    blocks, heads = unit_costs(spec)["flops"]
    network = BranchedModel(spec).to(device).train()
    images = torch.zeros(batch, 3, *spec.backbone.size, dtype=torch.uint8, device=device)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16) if bf16 else nullcontext():
            outputs = network(images)
        torch.stack([output.float().square().mean() for output in outputs.values()]).sum().backward()
        if device == "cuda":
            torch.cuda.synchronize()

    step()
    began, steps = time.perf_counter(), 0
    while not steps or time.perf_counter() - began < seconds:
        step()
        steps += 1
    took = (time.perf_counter() - began) / steps
    named = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    where = f"{named}, {batch} images of {spec.backbone.size[0]} x {spec.backbone.size[1]}"
    return Speed(flops=(1 + BACKWARD) * batch * (sum(blocks) + sum(heads)) / took, where=where), took


def _on(spec: ModelSpec, datasets: Sequence[str], size: tuple[int, int]) -> ModelSpec:
    """The same network for the tasks on some data sets alone, at one size."""
    tasks = tuple(task for task in spec.tasks if task.dataset in datasets)
    groups = tuple((0,) * len(tasks) for _ in spec.groups)
    return replace(spec, tasks=tasks, groups=groups, backbone=replace(spec.backbone, size=size))
