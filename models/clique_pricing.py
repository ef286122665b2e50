"""Pricing for the set-partition program: the branch whose diameter least exceeds the prices of its tasks.

Letters: T tasks, E pairs of tasks by rising distance. The branches whose widest pair is e are cliques of the pairs up
to e, so the best of them is a clique of greatest weight. Any number of tasks.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

COLUMNS = 64  # most branches that one pricing returns


class Pairs(NamedTuple):
    """All pairs of tasks by rising distance."""

    ends: np.ndarray  # [E, 2]
    lengths: np.ndarray  # [E]
    rank: np.ndarray  # [T, T], place of each pair; E on the diagonal


def ranked_pairs(distances: np.ndarray) -> Pairs:
    """Map symmetric dissimilarities [T, T] to their pairs."""
    rows, columns = np.triu_indices(len(distances), 1)
    order = np.argsort(distances[rows, columns], kind="stable")
    ends = np.stack([rows[order], columns[order]], axis=1)
    rank = np.full(distances.shape, len(order))
    rank[ends[:, 0], ends[:, 1]] = rank[ends[:, 1], ends[:, 0]] = np.arange(len(order))
    return Pairs(ends, distances[ends[:, 0], ends[:, 1]], rank)


@njit(cache=True)
def price(
    pairs: Pairs, prices: np.ndarray, low: int, high: int, narrow: float, wide: float, nodes: int
) -> tuple[float, float, np.ndarray, int]:
    """Map prices u >= 0 to lower bounds of diameter(S) - u(S) over branches S whose widest pair ranks below `low`, and
    over those with `low` to `high`; to the branches found below `narrow` and `wide`; and to the search nodes spent.

    Bounds are exact where below the given levels, else at most these. A search that spends more than `nodes` stands on
    its colouring bounds.
    """
    columns = np.zeros((COLUMNS, len(prices)), dtype=np.bool_)
    found, used = 0, 0
    least = np.empty(2)
    least[0], least[1] = narrow, wide
    for t in range(len(prices)):
        least[0] = min(least[0], -prices[t])
    proved = least.copy()
    candidates = np.empty(len(prices), dtype=np.int64)
    for e in range(high + 1):
        a, b = pairs.ends[e, 0], pairs.ends[e, 1]
        kind = 0 if e < low else 1
        if kind == 0 and (prices[a] == 0 or prices[b] == 0):
            continue
        base = pairs.lengths[e] - prices[a] - prices[b]
        count, total = 0, 0.0
        for t in range(len(prices)):
            if prices[t] > 0 and pairs.rank[t, a] < e and pairs.rank[t, b] < e:
                candidates[count] = t
                count += 1
                total += prices[t]
        if base - total >= least[kind]:
            continue
        level = base - least[kind]
        weight, bound, spent, clique = _heaviest(candidates[:count], prices, pairs.rank, e, level, nodes - used)
        used += spent
        if weight > level:
            least[kind] = base - weight
            for t in range(len(prices)):
                columns[found % COLUMNS, t] = clique[t] or t in (a, b)
            found += 1
        proved[kind] = min(proved[kind], least[kind], base - bound)
    return proved[0], proved[1], columns[: min(found, COLUMNS)], used


@njit(cache=True)
def _heaviest(
    candidates: np.ndarray, prices: np.ndarray, rank: np.ndarray, e: int, level: float, nodes: int
) -> tuple[float, float, int, np.ndarray]:
    """Find the heaviest clique above `level` among the candidates, pairs ranked below e being edges.

    Returns its weight (`level` where there is none), an upper bound of any clique's, the nodes spent and the clique.
    """
    count = len(candidates)
    order = np.empty((count + 1, count), dtype=np.int64)
    reach = np.empty((count + 1, count))
    left = np.zeros(count + 1, dtype=np.int64)
    weight = np.zeros(count + 1)
    clique = np.zeros(len(prices), dtype=np.bool_)
    # Where the level is below 0 even the pair alone, a clique of nothing, is news.
    best = max(level, 0.0)
    top = _colour(candidates, prices, rank, e, order[0], reach[0])
    left[0] = count
    depth, used = 0, 1
    while depth >= 0:
        left[depth] -= 1
        i = left[depth]
        if i < 0 or weight[depth] + reach[depth, i] <= best:
            depth -= 1
            continue
        if used >= nodes:
            return best, max(best, top), used, clique
        used += 1
        task = order[depth, i]
        below = 0
        for k in range(i):
            if rank[order[depth, k], task] < e:
                order[depth + 1, below] = order[depth, k]
                below += 1
        weight[depth + 1] = weight[depth] + prices[task]
        if below == 0 and weight[depth + 1] > best:
            best = weight[depth + 1]
            clique.fill(False)
            for k in range(depth + 1):
                clique[order[k, left[k]]] = True
        _colour(order[depth + 1, :below].copy(), prices, rank, e, order[depth + 1], reach[depth + 1])
        depth += 1
        left[depth] = below
    return best, best, used, clique


@njit(cache=True)
def _colour(
    tasks: np.ndarray, prices: np.ndarray, rank: np.ndarray, e: int, order: np.ndarray, reach: np.ndarray
) -> float:
    """Order tasks by classes without edges inside, light ones first in each: no clique among `order[: i + 1]` weighs
    more than `reach[i]`. Returns the bound for all.
    """
    waiting = len(tasks)
    placed = 0
    base = 0.0
    while waiting > 0:
        start, rest = placed, 0
        for i in range(waiting):
            task = tasks[i]
            free = True
            for k in range(start, placed):
                free = free and rank[task, order[k]] >= e
            if free:
                k = placed
                while k > start and prices[order[k - 1]] > prices[task]:
                    order[k] = order[k - 1]
                    k -= 1
                order[k] = task
                placed += 1
            else:
                tasks[rest] = task
                rest += 1
        waiting = rest
        for k in range(start, placed):
            reach[k] = base + prices[order[k]]
        base = reach[placed - 1]
    return base
