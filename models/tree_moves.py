"""The beam's inner loop: every move of one unit of a tree, weighed by what it changes, kept if among the best.

Letters: T tasks, D locations, L limits, N size classes, W trees in each. A unit is a branch with all that lies below
it, or a single task. Vandenhende et al. 2020, section 3.2.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

TIE = 1e-12  # costs closer than this are equal


class Space(NamedTuple):
    """What trees are measured by; sizes are without heads."""

    distances: np.ndarray  # [D, T, T], symmetric
    axis: np.ndarray  # [D], block costs whose sum over branches sets a tree's class
    rates: np.ndarray  # [L, D], block costs of the limits
    most: np.ndarray  # [L]
    share_first: bool
    low: float  # classes run from this size, by the root of the distance from it, to `high`
    high: float


class Beam(NamedTuple):
    """The W least-cost trees of each class, by rising cost; `least[n]` is the least cost up to class n."""

    costs: np.ndarray  # [N, W], infinite where empty
    sizes: np.ndarray  # [N, W]
    trees: np.ndarray  # [N, W, D, T]
    fresh: np.ndarray  # [N, W], not yet expanded
    least: np.ndarray  # [N]


class Shape(NamedTuple):
    """A tree's branches."""

    tree: np.ndarray  # [D, T], branch of every task
    branches: np.ndarray  # [D], their number
    first: np.ndarray  # [D, T], first task of each branch
    tasks: np.ndarray  # [D, T], their number in each branch
    diameters: np.ndarray  # [D, T]
    ends: np.ndarray  # [D, T, 2], two tasks at that distance
    sums: np.ndarray  # [D], of the diameters


class Weights(NamedTuple):
    """One unit's moves: cost and number of branches at each location, where it joins a branch and where it is apart."""

    inside: np.ndarray  # [T], the unit's tasks
    joined: np.ndarray  # [D, T]
    joined_count: np.ndarray  # [D, T]
    apart: np.ndarray  # [D]
    apart_count: np.ndarray  # [D]
    reach: np.ndarray  # [T], largest distance from the unit to each branch


@njit(cache=True)
def grow(space: Space, beam: Beam, seeds: np.ndarray, expansions: int) -> int:
    """Put the seeds [S, D, T] into the beam and expand its trees until none is left to expand; return the number."""
    locations, tasks = seeds.shape[1:]
    weights = Weights(
        np.zeros(tasks, dtype=np.bool_),
        np.zeros((locations, tasks)),
        np.zeros((locations, tasks), dtype=np.int64),
        np.zeros(locations),
        np.zeros(locations, dtype=np.int64),
        np.zeros(tasks),
    )
    nowhere = np.int64(0)  # a literal 0 would compile everything below a second time
    for k in range(len(seeds)):
        shape = _shape(seeds[k], space)
        cost = 0.0
        for d in range(locations):
            cost += shape.sums[d] / shape.branches[d]
        _keep(cost, shape.branches, nowhere, nowhere, shape.tree, weights.inside, space, beam)
    used = 0
    rising = True
    again = True
    while again and used < expansions:
        again = False
        for step in range(len(beam.costs)):
            n = step if rising else len(beam.costs) - 1 - step
            for w in range(beam.costs.shape[1]):
                if beam.fresh[n, w] and used < expansions:
                    beam.fresh[n, w] = False
                    if n == 0 or beam.costs[n, w] < beam.least[n - 1]:
                        again = True
                        used += 1
                        _expand(_shape(beam.trees[n, w], space), weights, space, beam)
        rising = not rising
    return used


@njit(cache=True)
def _shape(tree: np.ndarray, space: Space) -> Shape:
    locations, tasks = tree.shape
    shape = Shape(
        tree.copy(),
        np.zeros(locations, dtype=np.int64),
        np.zeros((locations, tasks), dtype=np.int64),
        np.zeros((locations, tasks), dtype=np.int64),
        np.zeros((locations, tasks)),
        np.zeros((locations, tasks, 2), dtype=np.int64),
        np.zeros(locations),
    )
    for d in range(locations):
        for t in range(tasks):
            c = tree[d, t]
            if shape.tasks[d, c] == 0:
                shape.first[d, c] = t
                shape.branches[d] += 1
            shape.tasks[d, c] += 1
            for s in range(t):
                if tree[d, s] == c and space.distances[d, s, t] > shape.diameters[d, c]:
                    shape.diameters[d, c] = space.distances[d, s, t]
                    shape.ends[d, c, 0] = s
                    shape.ends[d, c, 1] = t
        for c in range(shape.branches[d]):
            shape.sums[d] += shape.diameters[d, c]
    return shape


@njit(cache=True)
def _expand(shape: Shape, weights: Weights, space: Space, beam: Beam) -> None:
    """Try every move of every unit; units are taken at the deepest location where they are one branch."""
    locations, tasks = shape.tree.shape
    for e in range(locations + 1):
        for unit in range(shape.branches[e] if e < locations else tasks):
            head = shape.first[e, unit] if e < locations else unit
            number = shape.tasks[e, unit] if e < locations else 1
            below = e + 1 if e < locations else locations - 1
            same = below < locations and shape.tasks[below, shape.tree[below, head]] == number
            if number == tasks or same:
                continue
            for t in range(tasks):
                weights.inside[t] = shape.tree[e, t] == unit if e < locations else t == unit
            for d in range(locations):
                _weigh(d, head, number, shape, weights, space)
            _place(shape, weights, space, beam)


@njit(cache=True)
def _weigh(d: int, head: int, number: int, shape: Shape, weights: Weights, space: Space) -> None:
    """Fill `weights` at location d."""
    distances, inside, branch = space.distances[d], weights.inside, shape.tree[d]
    own = 0.0
    weights.reach.fill(0.0)
    for t in range(len(inside)):
        if inside[t]:
            for s in range(len(inside)):
                if inside[s]:
                    own = max(own, distances[t, s])
                else:
                    weights.reach[branch[s]] = max(weights.reach[branch[s]], distances[t, s])
    home, count = branch[head], shape.branches[d]
    base = shape.sums[d]
    within = shape.tasks[d, home] > number
    gone = 0
    if within:
        base += _left(d, home, shape, weights, space) - shape.diameters[d, home]
        weights.apart[d] = (base + own) / (count + 1)
        weights.apart_count[d] = count + 1
    else:
        weights.apart[d] = base / count
        weights.apart_count[d] = count
        for c in range(count):
            if inside[shape.first[d, c]]:
                base -= shape.diameters[d, c]
                gone += 1
    for c in range(count):
        old = shape.diameters[d, c]
        weights.joined_count[d, c] = count - gone
        if within and c == home:
            weights.joined[d, c] = shape.sums[d] / count
        elif count > gone:
            weights.joined[d, c] = (base - old + max(old, own, weights.reach[c])) / (count - gone)


@njit(cache=True)
def _left(d: int, home: int, shape: Shape, weights: Weights, space: Space) -> float:
    """The diameter of what the unit leaves behind in its branch at location d."""
    inside, branch = weights.inside, shape.tree[d]
    if not inside[shape.ends[d, home, 0]] and not inside[shape.ends[d, home, 1]]:
        return shape.diameters[d, home]
    left = 0.0
    for t in range(len(inside)):
        if branch[t] == home and not inside[t]:
            for s in range(t):
                if branch[s] == home and not inside[s]:
                    left = max(left, space.distances[d, s, t])
    return left


@njit(cache=True)
def _place(shape: Shape, weights: Weights, space: Space, beam: Beam) -> None:
    """Try the unit along the path of every branch, down to every depth, on branches of its own from there."""
    locations, tasks = shape.tree.shape
    path = np.zeros((locations, tasks))
    below = np.zeros(locations + 1)
    for d in range(locations - 1, -1, -1):
        below[d] = below[d + 1] + weights.apart[d]
    counts = np.zeros(locations, dtype=np.int64)
    nowhere = np.int64(0)  # not a literal, as in `grow`
    if not space.share_first:
        _keep(below[0], weights.apart_count, nowhere, nowhere, shape.tree, weights.inside, space, beam)
    for d in range(locations):
        for c in range(shape.branches[d]):
            host = shape.first[d, c]
            while host < tasks and (shape.tree[d, host] != c or weights.inside[host]):
                host += 1
            if host == tasks:
                continue
            path[d, c] = weights.joined[d, c] + (path[d - 1, shape.tree[d - 1, host]] if d else 0.0)
            for k in range(locations):
                counts[k] = weights.joined_count[k, shape.tree[k, host]] if k <= d else weights.apart_count[k]
            _keep(path[d, c] + below[d + 1], counts, d + 1, host, shape.tree, weights.inside, space, beam)


@njit(cache=True)
def _keep(
    cost: float,
    counts: np.ndarray,
    depth: int | np.int64,
    host: int | np.int64,
    tree: np.ndarray,
    inside: np.ndarray,
    space: Space,
    beam: Beam,
) -> None:
    """Put a tree into its class if it keeps the limits and is one of the best there.

    The tree is `tree` with the tasks `inside` on the path of task `host` over the first `depth` locations.
    """
    for k in range(len(space.most)):
        size = 0.0
        for d in range(len(counts)):
            size += space.rates[k, d] * counts[d]
        if size > space.most[k]:
            return
    size = 0.0
    for d in range(len(counts)):
        size += space.axis[d] * counts[d]
    classes, width = beam.costs.shape
    part = min(1.0, max(0.0, (size - space.low) / (space.high - space.low))) if space.high > space.low else 0.0
    n = min(classes - 1, int(np.sqrt(part) * classes))
    if cost >= beam.costs[n, width - 1] - TIE or (n > 0 and cost >= beam.least[n - 1] - TIE):
        return
    for w in range(width):
        if abs(beam.costs[n, w] - cost) <= TIE and beam.sizes[n, w] <= size:
            return
    w = _room(n, cost, beam)
    beam.costs[n, w] = cost
    beam.sizes[n, w] = size
    beam.fresh[n, w] = True
    _write(beam.trees[n, w], depth, host, tree, inside)
    while n < classes and beam.least[n] > cost:
        beam.least[n] = cost
        n += 1


@njit(cache=True)
def _room(n: int, cost: float, beam: Beam) -> int:
    """Push the last tree out of class n and return the place, by cost, that this frees."""
    w = beam.costs.shape[1] - 1
    while w > 0 and beam.costs[n, w - 1] > cost:
        beam.costs[n, w] = beam.costs[n, w - 1]
        beam.sizes[n, w] = beam.sizes[n, w - 1]
        beam.fresh[n, w] = beam.fresh[n, w - 1]
        for d in range(beam.trees.shape[2]):
            for t in range(beam.trees.shape[3]):
                beam.trees[n, w, d, t] = beam.trees[n, w - 1, d, t]
        w -= 1
    return w


@njit(cache=True)
def _write(new: np.ndarray, depth: int | np.int64, host: int | np.int64, tree: np.ndarray, inside: np.ndarray) -> None:
    """Write the moved tree, the branches of every location numbered from 0 without gaps."""
    locations, tasks = tree.shape
    names = np.empty(2 * tasks, dtype=np.int64)
    for d in range(locations):
        names.fill(-1)
        count = 0
        for t in range(tasks):
            old = tree[d, t]
            if inside[t]:
                old = tree[d, host] if d < depth else old + tasks
            if names[old] < 0:
                names[old] = count
                count += 1
            new[d, t] = names[old]
