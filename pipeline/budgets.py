"""Budgets as people write them -> numbers of parameters or FLOPs, refused where no tree could meet them."""

from collections.abc import Sequence

from models.branch_tree import BranchTree
from pipeline.config import Trees


def budget_limits(trees: Trees, block_costs: Sequence[int], head_costs: Sequence[int]) -> dict[str, float]:
    """Map each entry of `trees.budgets` to a limit in `trees.unit`; "1.3x" is 1.3 times the fully shared network.

    ValueError where a budget is below the fully shared network, with both numbers.
    """
    shared = BranchTree.shared(len(head_costs), len(block_costs)).budget(block_costs, head_costs)
    limits: dict[str, float] = {}
    for index, written in enumerate(trees.budgets):
        relative = isinstance(written, str) and written.endswith("x")
        limit = float(written[:-1]) * shared if relative and isinstance(written, str) else float(written)
        if limit < shared:
            raise ValueError(
                f"params.yaml trees.budgets[{index}] {written}: {limit:,.0f} {trees.unit} are fewer than the"
                f" {shared:,.0f} of the fully shared network (blocks {sum(block_costs):,}, heads {sum(head_costs):,}),"
                " the smallest there is; raise the budget or take a smaller backbone"
            )
        limits[str(written)] = limit
    return limits
