"""What can be known to go wrong before anything is read or trained. It decides no result, so no stage depends on it."""

from collections.abc import Mapping

from models.branch_tree import BranchTree
from models.sharing.branched import block_costs
from models.tree_search import count_trees
from pipeline.artifacts import DatasetManifest
from pipeline.budgets import requests
from pipeline.config import Config
from pipeline.jobs import model_spec, task_specs

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
