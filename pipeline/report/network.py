"""A trained network for all tasks, whichever strategy shared it: one row of the results."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]

BRANCHED = "branched"  # the strategy whose networks are trees
SINGLE, TRIVIAL = "single-task", "trivial"


@dataclass(frozen=True, kw_only=True)
class Network:
    """One network for all tasks; `val` and `test` hold a value per seed, in that order.

    `keys` and `epochs` are those of its jobs: one a seed, or one a task where each task was trained by itself.
    `request` is the budget that it was chosen for, empty where there was none.
    """

    name: str
    label: str
    strategy: str
    request: str
    params: int
    flops: int
    seconds: float
    seeds: tuple[int, ...]
    keys: tuple[str, ...]
    epochs: tuple[int, ...]
    val: Mapping[str, tuple[float, ...]]
    test: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A network for all tasks, or a set of networks, that may be what one wants; baselines too.

    `group` is what it is drawn as; `sketch` shows at a glance what it shares: under "tree" the branch of each task by
    location, under "layers" each task's own layers, under "experts" [L, M, E] each data set's shares of choices.
    """

    network: Network
    group: str
    sketch: Mapping[str, Any] = field(default_factory=dict)
