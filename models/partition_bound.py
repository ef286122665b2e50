"""How little any tree can cost: proved bounds per location and number of branches, and per size of the network.

Letters: T tasks, D locations, C columns (branches known to the linear program). Vandenhende et al. 2020, section 3.2.
Set partitioning by column generation; the largest diameter is branched on, for without that the program mixes the one
large branch with single tasks and proves next to nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linprog

from models.clique_pricing import Pairs, price, ranked_pairs
from models.search_problem import SearchProblem

ROUNDS = 400  # linear programs per location; with the nodes the only limit, so that every machine proves the same
NODES = 20_000_000  # clique search nodes per location
NODES_AT_ONCE = 200_000  # per pricing
CLOSE = 1e-9  # relative distance to the known sums at which a bound meets them
LIST = 20_000  # vectors kept per location and last number of branches


@dataclass
class _Columns:
    """Branches that the linear programs may use, shared by all of them."""

    members: np.ndarray  # [C, T] bool
    diameters: np.ndarray  # [C]
    widest: np.ndarray  # [C], rank of the widest pair; -1 for a single task
    known: set[bytes] = field(default_factory=set)

    def add(self, members: np.ndarray, pairs: Pairs) -> bool:
        """Take in the branches [C, T] that are new; return whether any was."""
        fresh = [row for row in members if row.tobytes() not in self.known]
        for row in fresh:
            self.known.add(row.tobytes())
            tasks = np.flatnonzero(row)
            ranks = pairs.rank[np.ix_(tasks, tasks)]
            widest = int(ranks[ranks < len(pairs.lengths)].max(initial=-1))
            self.widest = np.append(self.widest, widest)
            self.diameters = np.append(self.diameters, pairs.lengths[widest] if widest >= 0 else 0.0)
        self.members = np.vstack([self.members, *fresh])
        return bool(fresh)


@dataclass
class _Interval:
    """The partitions whose widest pair ranks from `low` to `high`: a bound for each number of branches."""

    low: int
    high: int
    bounds: np.ndarray  # [T + 1]
    done: set[int] = field(default_factory=set)  # numbers of branches for which the program has no more to give


def partition_bounds(distances: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Map symmetric dissimilarities [T, T] and the sums of diameters of known partitions [T + 1], 0 where no bound is
    wanted, to lower bounds.

    Entry j bounds the sum of diameters over all partitions into j branches; entry 0 is unused. Any prices u >= 0 bound
    every j at once: sum(u) + wide(u) + (j - 1) min(wide(u), narrow(u)), the least diameter(S) - u(S) of the branches S
    that may be the widest, and of the others. The interval and j furthest below `sums` are worked on first.
    """
    tasks = len(distances)
    bounds = np.zeros(tasks + 1)
    bounds[1] = distances.max()
    open_parts = np.array([parts for parts in range(2, tasks) if sums[parts] > 0])
    # Rounding may leave distances just below 0; that much less per branch is all that it can change.
    pairs = ranked_pairs(np.maximum(distances, 0.0))
    columns = _Columns(np.zeros((0, tasks), dtype=bool), np.zeros(0), np.zeros(0, dtype=int))
    columns.add(np.vstack([np.eye(tasks, dtype=bool), np.ones((1, tasks), dtype=bool)]), pairs)
    intervals = [_Interval(0, len(pairs.lengths) - 1, np.zeros(tasks + 1))]
    rounds = nodes = 0
    while len(open_parts) and rounds < ROUNDS and nodes < NODES:
        table = np.array([interval.bounds for interval in intervals])
        ratio = table.min(axis=0)[open_parts] / sums[open_parts]
        parts = int(open_parts[ratio.argmin()])
        interval = intervals[int(table[:, parts].argmin())]
        if ratio.min() >= 1 - CLOSE:
            break
        if parts not in interval.done:
            nodes += _improve(interval, parts, sums[parts] * (1 - CLOSE), columns, pairs)
            rounds += 1
        elif interval.low < interval.high:
            intervals.remove(interval)
            intervals += _halves(interval, pairs.lengths)
        else:
            open_parts = open_parts[open_parts != parts]
    least = np.min([interval.bounds for interval in intervals], axis=0)
    bounds[2:tasks] = np.minimum(least, sums)[2:tasks]
    return bounds + min(0.0, distances.min()) * np.arange(tasks + 1)


def _improve(interval: _Interval, parts: int, goal: float, columns: _Columns, pairs: Pairs) -> int:
    """Solve one linear program, raise the interval's bounds by its prices, add the columns found; return the nodes."""
    value, prices, narrow, wide = _program(columns, interval, parts)
    found = price(pairs, prices, interval.low, interval.high, narrow, wide, NODES_AT_ONCE)
    least = prices.sum() + found[1] + (np.arange(len(prices) + 1) - 1) * min(found[0], found[1])
    interval.bounds = np.maximum(interval.bounds, least)
    grown = columns.add(found[2], pairs)
    # The value falls with every column, and no prices prove more: below the goal only a split helps.
    if not grown or (value < goal and interval.low < interval.high):
        interval.done.add(parts)
    return found[3]


def _program(columns: _Columns, interval: _Interval, parts: int) -> tuple[float, np.ndarray, float, float]:
    """Least sum of diameters of at most `parts` fractional branches, one at least as wide as the interval asks.

    Returns the value, the tasks' prices and the levels that a new column must beat: of any width below the interval's,
    and of a width inside it.
    """
    tasks = columns.members.shape[1]
    use = columns.widest <= interval.high
    # The last column keeps the program feasible: it does everything at a cost that no partition reaches.
    rows = np.ones((tasks + 2, use.sum() + 1))
    rows[:tasks, :-1] = columns.members[use].T
    rows[tasks, :-1] = columns.widest[use] >= interval.low
    rows[tasks + 1] = -1.0
    rows[tasks + 1, -1] = 0.0
    costs = np.append(columns.diameters[use], 4 * columns.diameters.max() + 1e-9)
    need = np.array([*[1.0] * (tasks + 1), -float(parts)])
    options = {"presolve": False, "dual_feasibility_tolerance": 1e-10}
    result = linprog(costs, A_ub=-rows, b_ub=-need, method="highs-ds", options=options)
    assert result.success, result.message
    duals = np.maximum(-result.ineqlin.marginals, 0.0)
    return result.fun, duals[:tasks], -duals[-1], duals[tasks] - duals[-1]


def _halves(interval: _Interval, lengths: np.ndarray) -> list[_Interval]:
    """Split an interval in the middle of its lengths; the widest pair alone costs its length."""
    low, high = interval.low, interval.high
    middle = int(np.searchsorted(lengths, (lengths[low] + lengths[high]) / 2, side="right"))
    cut = min(max(middle, low + 1), high)
    wider = np.maximum(interval.bounds, lengths[cut])
    return [_Interval(low, cut - 1, interval.bounds.copy()), _Interval(cut, high, wider)]


def size_bounds(problem: SearchProblem, bounds_DT: np.ndarray, sizes: Sequence[float]) -> list[float]:
    """Map bounds per location and number of branches [D, T + 1] to lower bounds of the cost of allowed trees.

    Entry i holds for every tree smaller than `sizes[i]`, one more entry for every tree that keeps the limits.
    """
    low, bounds = _staircase(problem, bounds_DT, problem.block_costs)
    heads = sum(problem.head_costs)
    below = [np.searchsorted(low, (size - heads) * (1 - 1e-12), side="left") for size in [*sizes, np.inf]]
    least = -np.inf
    for limit in problem.limits:
        sizes_L, bounds_L = _staircase(problem, bounds_DT, limit.block_costs)
        most = (limit.most - sum(limit.head_costs)) * (1 + 1e-12)
        least = max(least, float(bounds_L[np.searchsorted(sizes_L, most, side="right") - 1]))
    return [max(least, float(bounds[max(n, 1) - 1])) for n in below]


def _staircase(
    problem: SearchProblem, bounds_DT: np.ndarray, block_costs: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Map bounds to rising sizes (without heads) and the falling least bound of the vectors up to each.

    Location by location, keeping for every last number of branches the vectors that none beats in size and bound.
    """
    tasks = problem.num_tasks
    ends = [(np.zeros(1), np.zeros(1)), *[(np.zeros(0), np.zeros(0))] * (tasks - 1)]  # by last number of branches
    for location, block_cost in enumerate(block_costs):
        grown = []
        lists = (np.zeros(0), np.zeros(0))
        for branches in range(1, tasks + 1):
            lists = _undominated(*map(np.concatenate, zip(lists, ends[branches - 1], strict=True)))
            cost = bounds_DT[location, branches] / branches
            split = problem.share_first and location == 0 and branches > 1
            kept = _thinned(*lists)
            grown.append((kept[0][:0], kept[1][:0]) if split else (kept[0] + branches * block_cost, kept[1] + cost))
        ends = grown
    return _undominated(*map(np.concatenate, zip(*ends, strict=True)))


def _undominated(sizes: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((bounds, sizes))
    sizes, bounds = sizes[order], bounds[order]
    keep = bounds < np.minimum.accumulate(np.append(np.inf, bounds))[:-1]
    return sizes[keep], bounds[keep]


def _thinned(sizes: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Join neighbours beyond `LIST`, to the smaller size and the lower bound of each run: what holds still holds."""
    if len(sizes) <= LIST:
        return sizes, bounds
    run = np.arange(len(sizes)) * LIST // len(sizes)
    first = np.flatnonzero(np.diff(run, prepend=-1))
    return sizes[first], np.minimum.reduceat(bounds, first)
