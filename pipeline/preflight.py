"""What can be known to go wrong before anything is read or trained. It decides no result, so no stage depends on it."""

from collections.abc import Mapping

from models.adaptation import ADAPTATIONS
from models.branch_tree import BranchTree
from models.sharing import SHARING
from models.sharing.branched import block_costs
from models.tree_search import count_trees
from pipeline.adapting import adapted_tasks, base_of, baseline_jobs, matched_jobs, taps_jobs
from pipeline.artifacts import DatasetManifest
from pipeline.budgets import requests
from pipeline.config import Config
from pipeline.jobs import model_spec, task_specs
from pipeline.settings_file import nearest

MOST_TRAINED = 500  # trees that one would train to draw them all


def check_study(config: Config, manifests: Mapping[str, DatasetManifest]) -> None:
    """Build the fully shared network once: wrong tasks, options, columns, backbone or budgets show as ValueError."""
    tasks, locations = task_specs(config, manifests), config.backbone.locations
    spec = model_spec(config, manifests, tasks, BranchTree.shared(len(tasks), locations).groups)
    requests(config.trees, {unit: block_costs(spec, unit) for unit in ("params", "flops")})
    count = count_trees(len(tasks), locations - config.trees.share_first)
    if config.branched.exhaustive and count > MOST_TRAINED:
        raise ValueError(
            f"params.yaml branched.exhaustive: {len(tasks)} tasks at {locations} locations have {count:,} trees to"
            f" train, more than {MOST_TRAINED}; take fewer tasks or locations, trees.share_first: true, or turn it off"
        )
    _check_taps(config, manifests)


def _check_taps(config: Config, manifests: Mapping[str, DatasetManifest]) -> None:
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
            SHARING[spec.strategy](spec)
        except ValueError as error:
            raise ValueError(f"params.yaml taps, {method}: {error}") from None
