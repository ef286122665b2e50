"""A branch tree: which tasks run through the same copy of each block of the backbone.

Letters: T tasks, D locations. Location d closes block d; its branches are the copies of that block.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

Affinity = Tensor | Sequence[Sequence[Sequence[float]]]
Partition = tuple[int, ...]  # branch of every task, branches numbered in the order of their first task


@dataclass(frozen=True, order=True, init=False)
class BranchTree:
    """A chain of D partitions of T tasks, each a refinement of the one before; equal trees have equal `groups`."""

    groups: tuple[Partition, ...]

    def __init__(self, groups: Sequence[Sequence[int]]) -> None:
        """Map `groups[d][t]`, the branch of task t at location d under any numbering, to the tree."""
        if not len(groups) or not len(groups[0]):
            raise ValueError(f"a tree needs at least one location and one task; got groups = {groups}")
        canonical = tuple(_canonical(row) for row in groups)
        for location in range(1, len(canonical)):
            _check_refines(canonical[location - 1], canonical[location], location)
        object.__setattr__(self, "groups", canonical)

    @classmethod
    def shared(cls, num_tasks: int, num_locations: int) -> "BranchTree":
        """Hard sharing: one branch at every location."""
        return cls([[0] * num_tasks] * num_locations)

    @classmethod
    def split(cls, num_tasks: int, num_locations: int) -> "BranchTree":
        """Single-task networks: every task in a branch of its own at every location."""
        return cls([range(num_tasks)] * num_locations)

    @property
    def num_tasks(self) -> int:
        return len(self.groups[0])

    @property
    def num_locations(self) -> int:
        return len(self.groups)

    @property
    def branches(self) -> tuple[int, ...]:
        """Number of branches at every location, (b_1, ..., b_D)."""
        return tuple(max(partition) + 1 for partition in self.groups)

    def members(self, location: int) -> tuple[tuple[int, ...], ...]:
        """Map a location to the tasks of each of its branches."""
        return partition_members(self.groups[location])

    def cost(self, affinity: Affinity) -> float:
        """Map affinities [D, T, T] to the tree's dissimilarity C_cluster (Vandenhende et al. 2020, section 3.2).

        Sum over locations of the mean over branches of the largest 1 - A inside the branch; a single task counts 0.
        """
        return self.cost_of(task_distances(affinity))

    def cost_of(self, distances: Sequence[Sequence[Sequence[float]]]) -> float:
        """Map dissimilarities [D][T][T] to `cost`."""
        if (len(distances), len(distances[0])) != (self.num_locations, self.num_tasks):
            shape = f"{len(distances)} locations and {len(distances[0])} tasks"
            raise ValueError(f"affinity has {shape}; the tree has {self.num_locations} and {self.num_tasks}")
        total = 0.0
        for location, rows in enumerate(distances):
            total += location_cost([diameter(branch, rows) for branch in self.members(location)])
        return total

    def budget(self, block_costs: Sequence[float], head_costs: Sequence[float]) -> float:
        """Map the cost of each block and each head (parameters or FLOPs) to the whole network's; integers stay so."""
        for name, costs, count, of in (
            ("block_costs", block_costs, self.num_locations, "location"),
            ("head_costs", head_costs, self.num_tasks, "task"),
        ):
            if len(costs) != count:
                raise ValueError(f"{name} has {len(costs)} entries; the tree needs one per {of}, {count}")
        return sum(b * cost for b, cost in zip(self.branches, block_costs, strict=True)) + sum(head_costs)

    def text(self, task_names: Sequence[str]) -> str:
        """Map the tasks' names to a drawing of the tree, one line per branch, branches under the one they leave."""
        if len(task_names) != self.num_tasks:
            raise ValueError(f"{len(task_names)} task names for a tree of {self.num_tasks} tasks")
        return "\n".join(["images", *self._lines(tuple(range(self.num_tasks)), 0, task_names)])

    def _lines(self, tasks: tuple[int, ...], location: int, names: Sequence[str]) -> list[str]:
        if location == self.num_locations:
            return []
        children = [branch for branch in self.members(location) if branch[0] in tasks]
        lines = []
        for branch in children:
            last = branch is children[-1]
            lines.append(f"{'└─' if last else '├─'} location {location + 1}: {', '.join(names[t] for t in branch)}")
            lines += [("   " if last else "│  ") + line for line in self._lines(branch, location + 1, names)]
        return lines


def partition_members(partition: Partition) -> tuple[tuple[int, ...], ...]:
    """Map a partition to the tasks of each branch, branches and tasks in rising order."""
    members: list[list[int]] = [[] for _ in range(max(partition) + 1)]
    for task, branch in enumerate(partition):
        members[branch].append(task)
    return tuple(map(tuple, members))


def task_distances(affinity: Affinity) -> list[list[list[float]]]:
    """Map affinities [D, T, T] to task dissimilarities 1 - A as plain numbers, refused where they are no such thing."""
    rows_DTT = affinity.tolist() if isinstance(affinity, Tensor) else affinity
    tasks = len(rows_DTT[0]) if len(rows_DTT) else 0
    if not tasks or any(len(rows) != tasks or any(len(row) != tasks for row in rows) for rows in rows_DTT):
        raise ValueError("affinity must be [locations, tasks, tasks] with at least one of each")
    if not all(math.isfinite(value) for rows in rows_DTT for row in rows for value in row):
        raise ValueError("affinity holds values that are not finite")
    return [[[1 - value for value in row] for row in rows] for rows in rows_DTT]


def diameter(tasks: Sequence[int], distances: Sequence[Sequence[float]]) -> float:
    """Map a branch to its largest task dissimilarity, 0 for a single task."""
    return max((distances[a][b] for i, b in enumerate(tasks) for a in tasks[:i]), default=0.0)


def location_cost(diameters: Sequence[float]) -> float:
    """Map the diameters of a location's branches to C_cluster^l, their mean."""
    return sum(diameters) / len(diameters)


def _canonical(row: Sequence[int]) -> Partition:
    """Number the branches by first appearance (a restricted growth string), so that equal partitions are equal."""
    seen: dict[int, int] = {}
    return tuple(seen.setdefault(int(branch), len(seen)) for branch in row)


def _check_refines(coarse: Partition, fine: Partition, location: int) -> None:
    where = f"location {location + 1} (groups[{location}])"
    if len(fine) != len(coarse):
        raise ValueError(f"{where} lists {len(fine)} tasks, the location before it {len(coarse)}")
    first: dict[int, int] = {}
    for task, branch in enumerate(fine):
        other = first.setdefault(branch, task)
        if coarse[other] != coarse[task]:
            raise ValueError(
                f"{where}: tasks {other} and {task} share a branch but ran apart at the location before it; "
                "branches may split but never join again"
            )
