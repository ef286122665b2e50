"""What can be known to go wrong before anything is read or trained. It decides no result, so no stage depends on it."""

from collections.abc import Mapping

from models.branch_tree import BranchTree
from models.sharing.branched import block_costs
from pipeline.artifacts import DatasetManifest
from pipeline.budgets import budget_limits
from pipeline.config import Config
from pipeline.jobs import model_spec, task_specs


def check_study(config: Config, manifests: Mapping[str, DatasetManifest]) -> None:
    """Build the fully shared network once: wrong tasks, options, columns, backbone or budgets show as ValueError."""
    tasks = task_specs(config, manifests)
    shared = BranchTree.shared(len(tasks), config.backbone.locations)
    budget_limits(config.trees, *block_costs(model_spec(config, manifests, tasks, shared.groups), config.trees.unit))
