"""A preset -> what it trains on sets of their public sizes: the jobs, in waves that wait for one another.

The jobs and their FLOPs are those of `make plan`, which needs no data for them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from models.branch_tree import BranchTree
from pipeline.artifacts import DatasetManifest
from pipeline.budgets import Costs
from pipeline.config import Config, load
from pipeline.jobs import TrainJob
from pipeline.machine import Machine
from pipeline.plan_costs import image_costs, job_flops, network_params, shared_spec, steps_of, unit_costs
from pipeline.plan_data import look
from pipeline.plan_jobs import Planned, planned_jobs
from pipeline.presets import preset_path

# Images of train, of an official val (0: drawn from train) and of what is reported on.
SIZES: Mapping[str, Mapping[str, tuple[int, int, int]]] = {
    "cityscapes": {"cityscapes": (2_975, 0, 500)},
    "taskonomy": {"taskonomy": (275_000, 52_000, 54_000)},
    "celeba": {"celeba": (162_770, 19_867, 19_962)},
    "imagenet_to_sketch": {
        "flowers": (2_040, 0, 6_149),
        "wikiart": (42_129, 0, 10_628),
        "sketch": (16_000, 0, 4_000),
        "cars": (8_144, 0, 8_041),
        "cub": (5_994, 0, 5_794),
    },
    "decathlon": {
        "imagenet12": (1_232_167, 0, 49_000),
        "aircraft": (3_334, 0, 3_333),
        "cifar100": (40_000, 0, 10_000),
        "daimlerpedcls": (23_520, 0, 5_880),
        "dtd": (1_880, 0, 1_880),
        "gtsrb": (31_367, 0, 7_842),
        "omniglot": (19_476, 0, 6_492),
        "svhn": (47_217, 0, 26_040),
        "ucf101": (7_629, 0, 1_908),
        "vgg_flowers": (1_020, 0, 1_020),
    },
    "domainnet": {
        "real": (120_906, 0, 52_041),
        "painting": (50_416, 0, 21_850),
        "quickdraw": (120_750, 0, 51_750),
        "clipart": (33_525, 0, 14_604),
        "infograph": (36_023, 0, 15_582),
        "sketch": (48_212, 0, 20_916),
    },
    "mthl": {
        "imagenet": (1_281_167, 0, 50_000),
        "coco": (118_287, 0, 5_000),
        "ade20k": (20_210, 0, 2_000),
        "places365": (1_803_460, 0, 36_500),
        "inaturalist": (437_513, 0, 24_426),
        "pets": (3_680, 0, 3_669),
        "cub": (5_994, 0, 5_794),
        "cars": (8_144, 0, 8_041),
        "voc": (5_717, 0, 5_823),
        "cityscapes": (2_975, 0, 500),
        "nyuv2": (795, 0, 654),
    },
}
# Of the driver, on one core: a stage's imports with DVC's own time, decoding a pixel, RSA of a task at a location (500
# images, 50 resamples, 20 permutations; RDMs not counted).
STAGE_S, PIXEL_S, RSA_S = 15.0, 1e-8, 0.18


@dataclass(frozen=True, kw_only=True)
class Load:
    """One job: the FLOPs of its whole training, its steps, and the bytes of gradients that ranks exchange in each."""

    job: TrainJob
    flops: float
    steps: int
    gradients: float


@dataclass(frozen=True, kw_only=True)
class Wave:
    """Jobs that may run at once, and the seconds before for which the driver works alone."""

    stage: str
    driver: float
    loads: Sequence[Load]


def waves(name: str) -> list[Wave]:
    """Map a preset's name to its waves in their order."""
    config = load(preset_path(name))
    manifests = {
        data: _sized(look(data, config, Machine()).manifest, config, images) for data, images in SIZES[name].items()
    }
    spec = shared_spec(config, manifests)
    costs, images = unit_costs(spec), image_costs(spec, manifests)
    params: dict[tuple[str, ...], float] = {}

    def load_of(item: Planned) -> Load:
        alike = item.stage, item.label, item.job.name if item.stage in ("pretrain", "branched") else ""
        if item.stage == "branched" or alike not in params:
            params[alike] = _params(item, costs["params"])
        flops, steps = job_flops(item, manifests, images), steps_of(item.job, manifests)
        assert flops is not None
        assert steps is not None
        return Load(job=item.job, flops=flops, steps=steps * item.job.train.epochs, gradients=4 * params[alike])

    found: list[Wave] = []
    for (stage, _), group in groupby(planned_jobs(config, manifests, costs), key=lambda item: _place(item, config)):
        items = list(group)
        first = not found or found[-1].stage != stage
        driver = _alone(config, manifests, items[0], first)
        found.append(Wave(stage=stage, driver=driver, loads=[load_of(item) for item in items]))
    return found


def _sized(manifest: DatasetManifest, config: Config, images: tuple[int, int, int]) -> DatasetManifest:
    train, val, test = images
    drawn = 0 if val else int(train * config.datasets[manifest.name].val)
    return replace(manifest, counts={"train": train - drawn, "val": val or drawn, "test": test})


def _params(item: Planned, costs: Costs) -> float:
    if item.stage != "branched":
        return network_params(item.job.model)
    least = BranchTree(item.job.model.groups).budget(*costs)
    most = BranchTree.split(len(item.job.model.tasks), len(item.job.model.groups)).budget(*costs)
    return least + item.between * (most - least)


def _place(item: Planned, config: Config) -> tuple[str, int]:
    """The stage of a job, and its turn in it: some jobs need what others have found."""
    if item.stage == "taps":
        return item.stage, int(item.label == "manual freezing")
    if item.stage != "adapt":
        return item.stage, 0
    if "LwF" in item.label:
        return item.stage, 2 + len(item.job.model.tasks)
    if item.label != "modes":
        return item.stage, 2
    later = [mode for mode in config.adapt.modes if config.adapt.mode(mode).needs_usage]
    waiting = {f"{task}-{mode}-lr{lr:g}" for task in config.adapt.tasks for mode in later for lr in config.adapt.lrs}
    return item.stage, int(item.job.name in waiting)


def _alone(config: Config, manifests: Mapping[str, DatasetManifest], item: Planned, first: bool) -> float:
    """Seconds of the driver before a wave: starting a stage, reading images on its own, and RSA."""
    counts, seconds = {name: manifest.counts for name, manifest in manifests.items()}, STAGE_S * first
    pixels = {name: height * width for name, (height, width) in ((n, m.size) for n, m in manifests.items())}
    if item.stage == "branched":  # after pretrain, which measures constants, affinity and trees
        read = [task.dataset for task in config.tasks.values()]
        seconds += sum(PIXEL_S * pixels[name] * (counts[name]["val"] + counts[name]["test"]) for name in read)
        seconds += 2 * STAGE_S + RSA_S * len(config.tasks) * config.backbone.locations
    if "LwF" in item.label:  # both networks that learn one task after another are measured on all that they know
        read = [task.dataset for task in item.job.model.tasks]
        seconds += 2 * sum(PIXEL_S * pixels[name] * counts[name]["test"] for name in read)
    return seconds
