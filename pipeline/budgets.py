"""Budgets as people write them -> numbers of parameters or FLOPs, refused where no tree could meet them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from models.branch_tree import BranchTree
from pipeline.strategies import Amount, Trees

Costs = tuple[Sequence[int], Sequence[int]]  # of each block, of each head


@dataclass(frozen=True)
class Request:
    """One entry of `trees.budgets`: as it was written, and the most that a tree may have in each unit named."""

    text: str
    limits: Mapping[str, float]

    @property
    def name(self) -> str:
        """A name for files and runs."""
        return "budget-" + self.text.replace(", ", "-").replace(" ", "-")


def requests(trees: Trees, costs: Mapping[str, Costs]) -> list[Request]:
    """Map `trees.budgets` and the costs by unit to limits; "1.3x" is 1.3 times the fully shared network.

    ValueError where a budget is below the fully shared network, with both numbers.
    """
    return [
        Request(_text(budget), {unit: _limit(amount, unit, index, costs[unit]) for unit, amount in amounts.items()})
        for index, budget in enumerate(trees.budgets)
        for amounts in [budget if isinstance(budget, dict) else {trees.unit: budget}]
    ]


def _text(budget: Amount | Mapping[str, Amount]) -> str:
    if isinstance(budget, Mapping):
        return ", ".join(f"{unit} {budget[unit]}" for unit in ("params", "flops"))
    return str(budget)


def _limit(written: Amount, unit: str, index: int, costs: Costs) -> float:
    blocks, heads = costs
    shared = BranchTree.shared(len(heads), len(blocks)).budget(blocks, heads)
    relative = isinstance(written, str) and written.endswith("x")
    limit = float(written[:-1]) * shared if relative and isinstance(written, str) else float(written)
    if limit < shared:
        raise ValueError(
            f"params.yaml trees.budgets[{index}] {written}: {limit:,.0f} {unit} are fewer than the {shared:,.0f} of the"
            f" fully shared network (blocks {sum(blocks):,}, heads {sum(heads):,}), the smallest there is; raise the"
            " budget or take a smaller backbone"
        )
    return limit
