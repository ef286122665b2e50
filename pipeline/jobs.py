"""Configuration -> training jobs: values whose key names their run.

A job holds everything that can change its result (network, data fingerprints, training settings, seed, the program's
own sources) and nothing that cannot (machine, paths, names). The same job twice is one job.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from models.spec import BackboneSpec, ModelSpec, TaskSpec
from pipeline.artifacts import DatasetManifest, digest, digest_files
from pipeline.config import ROOT, Config, Train
from pipeline.settings_file import nearest

# What decides a result once data and settings are given.
SOURCES = (
    *(f"models/{folder}/*.py" for folder in ("adaptation", "sharing", "tasks")),
    *(f"models/{name}.py" for name in ("accounting", "average_precision", "backbone", "batch_norm", "branch_tree")),
    *(f"models/{name}.py" for name in ("bundle", "bundle_files", "decathlon_resnet", "delta_files", "deltas")),
    *(f"models/{name}.py" for name in ("detection_head", "expert*", "gating", "heads", "loss_weights", "moe_bundle")),
    *(f"models/{name}.py" for name in ("moe_settings", "mutual_information", "rank_noise", "small_swin", "spec")),
    *(f"models/{name}.py" for name in ("spec_json", "taps_bundle", "thin_vgg")),
    *(
        f"pipeline/{name}.py"
        for name in ("augment", "pixel_kernels", "decoding", "draws", "evaluate", "loading", "loop", "optimise", "step")
    ),
    *(f"pipeline/{name}.py" for name in ("gradient_averaging", "training_state")),
)


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """One network to train: on which data, how, from which seed.

    `datasets` are (name, fingerprint, weight of being drawn, batch); tasks of the network on other data sets are
    neither trained nor evaluated. `draws` is the number of batches in a step, each from a data set drawn on its own.
    `reference` holds the single-task networks' validation metrics, against which a network for several tasks picks
    its best epoch; where one task is trained there is none.
    `start` names the jobs of tasks whose weights it starts from (task, key); without them it starts from the backbone.
    `loss_weights` is a key of `models.loss_weights.LOSS_WEIGHTS`. `lam` is the λ before the network's own penalty, zero
    in the first `lam_warmup` epochs. `name` is for people and does not count.
    """

    name: str
    model: ModelSpec
    datasets: tuple[tuple[str, str, float, int], ...]
    train: Train
    seed: int
    reference: tuple[tuple[str, float], ...] = ()
    start: tuple[tuple[str, str], ...] = ()
    loss_weights: str = "fixed"
    lam: float = 0.0
    lam_warmup: int = 0
    draws: int = 1

    def __post_init__(self) -> None:
        trained = self.trained
        if len(trained) > 1 and {name for name, _ in self.reference} != set(trained):
            raise ValueError(f"job {self.name}: several tasks need a single-task reference for each")

    @property
    def batches(self) -> tuple[int, ...]:
        """The images of each data set that a draw or an evaluation reads at a time."""
        return tuple(batch for *_, batch in self.datasets)

    @property
    def trained(self) -> tuple[str, ...]:
        """The tasks that live on the job's data sets."""
        names = {name for name, *_ in self.datasets}
        return tuple(task.name for task in self.model.tasks if task.dataset in names)

    @cached_property
    def key(self) -> str:
        """The run's name in storage and tracking: a digest of all that can change its result."""
        value = asdict(self) | {"name": "", "train": self.train.model_dump(), "sources": sources_digest()}
        return digest(value)


def usable_ranks(job: TrainJob, most: int) -> int:
    """Map a job and a number of workers to how many of them can share out its batches evenly: never a changed result.

    Ranks split one batch's images, in whole groups where train.norm_images asks for those; several batches they share.
    """
    shared = [job.draws] if job.draws > 1 else [batch // (job.train.norm_images or 1) for batch in job.batches]
    even = job.draws > 1 or job.train.norm_images is not None
    fits = (n for n in range(most, 0, -1) if all(parts % n == 0 if even else parts >= n for parts in shared))
    return next(fits, 0)


@cache
def sources_digest(root: Path = ROOT) -> str:
    """A digest of the program text that training runs."""
    return digest_files(sorted(path for pattern in SOURCES for path in root.glob(pattern)))


def task_specs(config: Config, manifests: Mapping[str, DatasetManifest]) -> tuple[TaskSpec, ...]:
    """Map the tasks of params.yaml and the columns that `prepare` found to specs. ValueError lists every mismatch."""
    errors: list[str] = []
    specs = []
    for name, task in config.tasks.items():
        columns = manifests[task.dataset].columns
        column = task.column or name
        if column not in columns:
            errors.append(
                f"params.yaml tasks.{name}.column: data set {task.dataset} has no column {column!r}. "
                f"{nearest(column, list(columns))}"
            )
            continue
        specs.append(
            TaskSpec(
                name=name,
                kind=task.kind,
                dataset=task.dataset,
                column_name=column,
                column=columns[column],
                weight=task.weight,
                head_width=task.head_width,
                head=task.head,
                options=tuple(sorted(task.options.items())),
            )
        )
    if errors:
        raise ValueError("\n".join(errors))
    return tuple(specs)


def model_spec(
    config: Config,
    manifests: Mapping[str, DatasetManifest],
    tasks: Sequence[TaskSpec],
    groups: Sequence[Sequence[int]],
) -> ModelSpec:
    """Map configuration, data and a branch tree's groups to a branched network's spec.

    Normalisation is the mean over the data sets that the tasks live on. Where the data sets of the study differ in
    size, each of its networks takes images of any size: so weights and features of one can stand beside another's.
    """
    used = [manifests[name] for name in dict.fromkeys(task.dataset for task in tasks)]
    sizes = {manifests[task.dataset].size for task in config.tasks.values()}
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))

    def average(name: str) -> tuple[float, float, float]:
        red, green, blue = (sum(getattr(m, name)[c] for m in used) / len(used) for c in range(3))
        return red, green, blue

    backbone = BackboneSpec(
        name=config.backbone.name,
        pretrained=config.backbone.pretrained,
        locations=config.backbone.locations,
        size=(height, width),
        dynamic=len(sizes) > 1,
    )
    return ModelSpec(
        strategy="branched",
        backbone=backbone,
        tasks=sized(tasks, manifests, backbone),
        mean=average("mean"),
        std=average("std"),
        groups=tuple(tuple(row) for row in groups),
    )


def sized(
    tasks: Sequence[TaskSpec], manifests: Mapping[str, DatasetManifest], backbone: BackboneSpec
) -> tuple[TaskSpec, ...]:
    """Map tasks to those that a network of this backbone has: with a dynamic one each knows its images' size."""
    return tuple(replace(task, size=manifests[task.dataset].size if backbone.dynamic else None) for task in tasks)


def train_job(
    config: Config,
    manifests: Mapping[str, DatasetManifest],
    model: ModelSpec,
    *,
    name: str,
    seed: int,
    reference: Mapping[str, float] | None = None,
    start: Mapping[str, str] | None = None,
    loss_weights: str = "fixed",
    train: Train | None = None,
    lam: float = 0.0,
    lam_warmup: int = 0,
    on: Sequence[str] | None = None,
    draws: int = 1,
) -> TrainJob:
    """Map a network to the job that trains it, under the study's `train` or another.

    `on` names the data sets that it is trained on, by default all of its tasks'; `reference` may hold more tasks.
    """
    train, used = train or config.train, dict.fromkeys(task.dataset for task in model.tasks)
    assert on is None or set(on) <= set(used)
    trained = [task.name for task in model.tasks if on is None or task.dataset in on]
    return TrainJob(
        name=name,
        model=model,
        datasets=tuple(
            (data, manifests[data].fingerprint, item.weight, item.batch or train.batch)
            for data, item in ((data, config.datasets[data]) for data in used if on is None or data in on)
        ),
        train=train,
        seed=seed,
        reference=tuple(sorted((task, value) for task, value in (reference or {}).items() if task in trained)),
        start=tuple(sorted((start or {}).items())),
        loss_weights=loss_weights,
        lam=lam,
        lam_warmup=lam_warmup,
        draws=draws,
    )


def tree_job(
    config: Config,
    manifests: Mapping[str, DatasetManifest],
    groups: Sequence[Sequence[int]],
    single: Mapping[str, Mapping[str, Any]],
    *,
    name: str,
    seed: int,
) -> TrainJob:
    """Map a tree of all tasks to the job that trains it; `single` is what `pretrain` says of each task's network."""
    members = config.branched.start == "members"
    return train_job(
        config,
        manifests,
        model_spec(config, manifests, task_specs(config, manifests), groups),
        name=f"{name}-s{seed}",
        seed=seed,
        reference={task: row["val"] for task, row in single.items()},
        start={task: row["job"] for task, row in single.items()} if members else {},
        loss_weights=config.branched.loss_weights,
    )
