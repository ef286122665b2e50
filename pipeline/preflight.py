"""What can be known to go wrong before anything is read or trained. It decides no result, so no stage depends on it."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec

from models.adaptation import ADAPTATIONS
from models.backbone import build_blocks, feature_shapes
from models.branch_tree import BranchTree
from models.bundle_files import offline
from models.exhaustive_search import EXHAUSTIVE_LIMIT
from models.sharing import SHARING
from models.sharing.branched import block_costs
from models.spec import ModelSpec
from models.tree_search import count_trees
from pipeline.adapt_jobs import base_of as adapt_base
from pipeline.adapt_jobs import first_jobs, later_jobs
from pipeline.adapting import adapted_tasks, base_of, baseline_jobs, matched_jobs, taps_jobs
from pipeline.artifacts import DatasetManifest
from pipeline.budgets import requests
from pipeline.config import Config
from pipeline.jobs import model_spec, task_specs
from pipeline.moe_jobs import joint_tasks, moe_trials
from pipeline.settings_file import nearest

MEASURED_BY = {"detection": "faster-coco-eval"}  # by kind of task, a package that is imported where it is needed
MOST_TRAINED = 500  # trees that one would train to draw them all


def check_study(config: Config, manifests: Mapping[str, DatasetManifest], *, weights: bool = True) -> None:
    """Build the fully shared network once: wrong tasks, options, columns, backbone or budgets show as ValueError.

    So do pre-trained weights that can't be had, unless `weights` says to leave them alone.
    """
    _check_packages(config)
    tasks, locations = task_specs(config, manifests), config.backbone.locations
    spec = model_spec(config, manifests, tasks, BranchTree.shared(len(tasks), locations).groups)
    spec = spec if weights else offline(spec)
    _check_sizes(spec)
    requests(config.trees, {unit: block_costs(spec, unit) for unit in ("params", "flops")})
    count = count_trees(len(tasks), locations - config.trees.share_first)
    if config.branched.exhaustive and count > MOST_TRAINED:
        raise ValueError(
            f"params.yaml branched.exhaustive: {len(tasks)} tasks at {locations} locations have {count:,} trees to"
            f" train, more than {MOST_TRAINED}; take fewer tasks or locations, trees.share_first: true, or turn it off"
        )
    _check_search(config)
    _check_taps(config, manifests, weights)
    if config.moe.lams:
        _check_moe(config, manifests)


def remarks(config: Config) -> Iterator[str]:
    """What is no error, but hardly what a study is for."""
    if len(config.tasks) == 1:
        yield (
            "one task has nothing to share, all its trees are the same network: add a second under tasks, or adapt"
            " timm's weights to it by taps.base: pretrained"
        )


def _check_packages(config: Config) -> None:
    """torchmetrics would miss its backend at the end of the first epoch."""
    for name, task in config.tasks.items():
        package = MEASURED_BY.get(task.kind)
        if package and find_spec(package.replace("-", "_")) is None:
            raise ValueError(
                f"params.yaml tasks.{name}.kind: {task.kind} is measured by {package}, which isn't installed;"
                " make setup installs it"
            )


def _check_search(config: Config) -> None:
    """What the search would refuse once all single-task networks are trained."""
    tasks, locations, shared = len(config.tasks), config.backbone.locations, config.trees.share_first
    where = f"params.yaml trees.method: {config.trees.method}: {tasks} tasks at {locations} locations"
    if config.trees.method == "exhaustive" and (count := count_trees(tasks, locations - shared)) > EXHAUSTIVE_LIMIT:
        fewer = {fewer: count_trees(tasks, fewer - shared) for fewer in range(1, locations)}
        most = max((fewer for fewer, left in fewer.items() if left <= EXHAUSTIVE_LIMIT), default=None)
        other = f", or backbone.locations: {most} ({fewer[most]:,} trees)" if most else ""
        raise ValueError(
            f"{where} have {count:,} trees, more than the {EXHAUSTIVE_LIMIT:,} that are searched one by one; set"
            f" trees.method: auto{other}"
        )
    if config.trees.method == "exact":
        from models.exact_search import MOST_BYTES  # brings numba, which no other method waits for here
        from models.subset_tables import table_bytes

        if (needed := table_bytes(locations, tasks)) > MOST_BYTES:
            raise ValueError(
                f"{where} need tables of {needed / 1e9:,.0f} GB, more than {MOST_BYTES / 1e9:.0f}; set trees.method:"
                " auto"
            )


def _check_sizes(spec: ModelSpec) -> None:
    """Run one empty image of every size through the backbone."""
    blocks = build_blocks(replace(spec.backbone, pretrained=False))
    for task in {task.size: task for task in reversed(spec.tasks)}.values():
        try:
            feature_shapes(blocks, task.size or spec.backbone.size)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"params.yaml datasets.{task.dataset}.size: {spec.backbone.name} can't take images of"
                f" {list(task.size or spec.backbone.size)} ({error}); take a larger size"
            ) from None


def _check_taps(config: Config, manifests: Mapping[str, DatasetManifest], load: bool) -> None:
    """Build one network of each method: wrong patterns, baselines and their settings show here."""
    taps = config.taps
    if taps.lams and not adapted_tasks(config):
        raise ValueError(
            f"params.yaml taps: no task is left to adapt the base {taps.base!r} to; name one in taps.tasks"
        )
    for place, name in enumerate(taps.baselines):
        if name not in ADAPTATIONS:
            raise ValueError(
                f"params.yaml taps.baselines[{place}]: no baseline {name!r}. {nearest(name, list(ADAPTATIONS))}"
            )
    base = base_of(config, manifests)
    single = {name: {"val": 0.0} for name in config.tasks}
    weights = dict.fromkeys(config.tasks, 0)
    jobs = [
        *taps_jobs(config, manifests, base, single),
        *baseline_jobs(config, manifests, base),
        *matched_jobs(config, manifests, base, weights),
    ]
    first = {item.method: item.job.model for item in reversed(jobs)}
    for method, spec in first.items() if taps.lams else ():
        try:
            SHARING[spec.strategy](spec if load else offline(spec))
        except ValueError as error:
            raise ValueError(f"params.yaml taps, {method}: {error}") from None


def _check_moe(config: Config, manifests: Mapping[str, DatasetManifest]) -> None:
    """Build the network with experts once, and that of every mode: what does not fit shows here."""
    adapt, joint = config.adapt, joint_tasks(config)
    if not joint:
        raise ValueError("params.yaml moe: adapt.tasks leave no task to train jointly; name some in moe.tasks")
    if "finetune" in config.moe.baselines and config.moe.pretrained_on is None:
        raise ValueError(
            "params.yaml moe.pretrained_on: the baseline finetune needs the task whose network it starts from"
        )
    taken = {config.tasks[task].dataset: f"moe.tasks has {task}" for task in joint}
    for place, task in enumerate(adapt.tasks):
        dataset = config.tasks[task].dataset
        if dataset in taken:
            raise ValueError(
                f"params.yaml adapt.tasks[{place}]: {task} lives on {dataset}, as {taken[dataset]}; a new data set has "
                "one task of its own"
            )
        taken[dataset] = f"adapt.tasks has {task}"
    single = {name: {"val": 1.0, "job": ""} for name in config.tasks}
    _build({trial.job.model: "moe" for trial in moe_trials(config, manifests, single)})
    base = adapt_base(config, manifests, "")
    even = {task: [[1.0] * len(numbers) for numbers in base.experts] for task in adapt.tasks}
    jobs = [
        *first_jobs(config, manifests, base),
        *later_jobs(config, manifests, base, dict.fromkeys(adapt.tasks, "router"), even),
    ]
    first = {item.mode: item.job.model for item in reversed(jobs)}
    _build({spec: f"adapt.modes, {mode}" for mode, spec in first.items()})


def _build(networks: Mapping[ModelSpec, str]) -> None:
    """Build networks; ValueError begins with what of params.yaml asked for one that can't be."""
    for spec, where in networks.items():
        try:
            SHARING[spec.strategy](offline(spec))
        except ValueError as error:
            raise ValueError(f"params.yaml {where}: {error}") from None
