"""Numbers of branches -> the least-cost tree, by nested branch and bound over tables of all sets of tasks.

Letters: T tasks, D locations. A set of tasks is the bits of one whole number. Vandenhende et al. 2020, section 3.2.

A tree is chosen branch by branch: all of location 1, then those of location 2 inside their parents, and so on. At every
choice each open location is bounded on its own, by the least sum that the tables allow inside the pieces chosen so far;
at the last location that is the value itself. No function calls itself: numba can't load such code from its cache.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from models.subset_tables import NEVER, Tables, Whole

# The columns of a frame, the state in which one branch is chosen: branch number COUNT of LOCATION, under PARENT, takes
# the tasks MUST and some of FREE, next TAKEN, DONE after the last; the tasks REST have no branch yet. PAID is the cost
# so far, BELOW the bound on the locations below, AFTER that on the sum of the parents that follow.
LOCATION, COUNT, PARENT, REST, MUST, FREE, TAKEN, PAID, BELOW, AFTER, WIDTH = range(11)
DONE = -1
# What takes time beside trying a set, 1: bounding the locations below it, and a search as such.
BOUND_WORK, SEARCH_WORK = 7, 400


class Pins(NamedTuple):
    """What is decided beforehand: the tasks [D] with a branch, and the branch [D, T] of each branch's first task."""

    tasks: Whole
    mates: Whole


class State(NamedTuple):
    """Where the search stands. A sum in n branches of i pieces is known for n from i to what leaves one to the others.

    While location d is chosen, `chosen[d, e, i, n]` is the least sum at e in n branches of d's first i branches, and
    `later[d, e, i, n]` that of d's parents from i on.
    """

    frames: Whole  # one row per branch chosen
    bounds: Whole  # per frame the terms [D] of BELOW
    parts: Whole  # [D + 1, T]: the branches of every location, under a first row for all tasks
    chosen: Whole
    later: Whole


def no_pins(locations: int, tasks: int) -> Pins:
    """Map the numbers of locations and tasks to the pins that leave all open."""
    return Pins(np.zeros(locations, np.int64), np.tile(1 << np.arange(tasks), (locations, 1)))


@njit(cache=True)
def least_tree(
    tables: Tables, pins: Pins, branches: Whole, cutoff: int, meter: Whole, first: bool
) -> tuple[int, Whole]:
    """Map numbers of branches (1, b_1, ..., b_D) to the least cost below `cutoff` and its tree, or to -1.

    The tree is the branches [D + 1, T] of every location, under a first row for all tasks. `first` is content with any
    tree below `cutoff`. `meter` counts the work done; once that passes its second entry the search ends, undone.
    """
    state = _start(tables, branches)
    best = np.empty_like(state.parts)
    depth, cost = -1, -1
    meter[0] += SEARCH_WORK
    if state.bounds[0].sum() < cutoff and _push(tables, pins, branches, state, 0, 0, 0, -1, 0, 0):
        depth = 0
    while depth >= 0 and meter[0] <= meter[1]:
        part = _choose(tables, branches, state, depth, cutoff, meter)
        if part == 0:
            depth -= 1
            continue
        frame = state.frames[depth]
        location, count, parent, rest = frame[LOCATION], frame[COUNT], frame[PARENT], frame[REST]
        paid = frame[PAID] + tables.weights[branches[location + 1]] * tables.diameters[location, part]
        state.parts[location + 1, count] = part
        if _push(tables, pins, branches, state, depth + 1, location, count + 1, parent, rest ^ part, paid):
            depth += 1
        else:
            cost, cutoff = paid, -1 if first else paid
            best[:] = state.parts
    return cost, best


@njit(cache=True)
def _start(tables: Tables, branches: Whole) -> State:
    locations, sets, width = tables.least.shape
    state = State(
        np.empty((locations * width, WIDTH), np.int64),
        np.empty((locations * width, locations), np.int64),
        np.zeros((locations + 1, width), np.int64),
        np.empty((locations, locations, width, width), np.int64),
        np.empty((locations, locations, width, width), np.int64),
    )
    state.parts[0, 0] = sets - 1
    for location in range(locations):
        most = branches[location + 1]
        state.bounds[0, location] = tables.weights[most] * tables.least[location, sets - 1, most]
    _open(tables, branches, state, 0)
    return state


@njit(cache=True)
def _open(tables: Tables, branches: Whole, state: State, location: int) -> None:
    """Ready a location's sums under the parents `parts[location]`."""
    parents = branches[location]
    for deep in range(location, len(branches) - 1):
        later = state.later[location, deep]
        later[parents] = NEVER
        later[parents, 0] = 0
        state.chosen[location, deep, 0] = later[parents]
        for i in range(parents - 1, -1, -1):
            piece = tables.least[deep, state.parts[location, i]]
            _join(later[i + 1], parents - i - 1, piece, branches[deep + 1] - i, later[i])


@njit(cache=True, inline="always")
def _join(sums: Whole, pieces: int, piece: Whole, most: int, joined: Whole) -> None:
    """Least sums of some pieces -> those with one more, in up to `most` branches, each piece in at least one."""
    for n in range(pieces + 1, most + 1):
        least = NEVER
        for j in range(pieces, n):
            least = min(least, sums[j] + piece[n - j])
        joined[n] = least


@njit(cache=True)
def _push(
    tables: Tables,
    pins: Pins,
    branches: Whole,
    state: State,
    depth: int,
    location: int,
    count: int,
    parent: int,
    rest: int,
    paid: int,
) -> bool:
    """Set a frame to choose the next branch: of `rest`, else of the next parent, else at the next location, if any."""
    if rest == 0:
        parent += 1
        if parent == branches[location]:
            location, count, parent = location + 1, 0, 0
            if location == len(branches) - 1:
                return False
            _open(tables, branches, state, location)
        rest = state.parts[location, parent]
    head = 0
    while not rest >> head & 1:
        head += 1
    must = pins.mates[location, head]
    after = NEVER
    for n in range(branches[location] - parent - 1, branches[location + 1] - count):
        after = min(after, state.later[location, location, parent + 1, n])
    frame = state.frames[depth]
    frame[LOCATION], frame[COUNT], frame[PARENT], frame[REST] = location, count, parent, rest
    frame[MUST], frame[FREE], frame[TAKEN] = must, rest & ~must & ~pins.tasks[location], 0
    frame[PAID], frame[BELOW], frame[AFTER] = paid, state.bounds[depth, location + 1 :].sum(), after
    return True


@njit(cache=True, inline="always")
def _choose(tables: Tables, branches: Whole, state: State, depth: int, cutoff: int, meter: Whole) -> int:
    """The next branch of a frame with which a tree may cost less than `cutoff`, or 0.

    Sets are tried in counting order: those that hold a set and tasks before its lowest follow it at once, and are left
    out where it is too wide.
    """
    frame = state.frames[depth]
    location, rest, must, free, taken = frame[LOCATION], frame[REST], frame[MUST], frame[FREE], frame[TAKEN]
    left, parents = branches[location + 1] - frame[COUNT] - 1, branches[location] - frame[PARENT] - 1
    weight, room = tables.weights[branches[location + 1]], cutoff - frame[PAID] - frame[BELOW]
    sizes, diameters, least = tables.sizes, tables.diameters[location], tables.least[location]
    later = state.later[location, location, frame[PARENT] + 1]
    part = 0
    while taken != DONE and part == 0:
        meter[0] += 1
        branch = must | taken
        beside = rest ^ branch
        spare = room - weight * diameters[branch]
        if spare <= weight * frame[AFTER]:
            step = (taken | ~free) + (taken & -taken)
        else:
            step = taken - free
            own = NEVER
            for n in range(min(sizes[beside], 1), min(sizes[beside], left - parents) + 1):
                own = min(own, least[beside, n] + later[left - n])
            if own < NEVER and weight * own < spare:
                meter[0] += BOUND_WORK
                if _fits_below(tables, branches, state, depth, branch, beside, spare - weight * own):
                    part = branch
        taken = step & free if step & free else DONE
    frame[TAKEN] = taken
    return part


@njit(cache=True, inline="always")
def _fits_below(tables: Tables, branches: Whole, state: State, depth: int, part: int, rest: int, spare: int) -> bool:
    """Whether the bounds on the locations below rise by less than `spare` if a frame takes `part` and leaves `rest`."""
    bounds, chosen, later, least = state.bounds, state.chosen, state.later, tables.least
    location, count, parent = state.frames[depth, LOCATION], state.frames[depth, COUNT], state.frames[depth, PARENT]
    size, some, parents = tables.sizes[rest], min(tables.sizes[rest], 1), branches[location] - parent - 1
    for deep in range(location + 1, len(branches) - 1):
        most = branches[deep + 1]
        top = most - parents - some
        joined = chosen[location, deep, count + 1]
        _join(chosen[location, deep, count], count, least[deep, part], top, joined)
        low = NEVER
        for a in range(count + 1, top + 1):
            for b in range(some, min(size, most - parents - a) + 1):
                low = min(low, joined[a] + least[deep, rest, b] + later[location, deep, parent + 1, most - a - b])
        if low == NEVER:
            return False
        bound = tables.weights[most] * low
        spare -= bound - bounds[depth, deep]
        if spare <= 0:
            return False
        bounds[depth + 1, deep] = bound
    return True
