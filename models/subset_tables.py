"""What every set of tasks costs at every location, in one branch and at best in j branches.

Letters: T tasks, D locations. A set of tasks is the bits of one whole number. Vandenhende et al. 2020, section 3.2.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Whole = NDArray[np.int64]

NEVER = 1 << 50  # dearer than any sum of diameters, and three of it still fit


class Tables(NamedTuple):
    """Tables over all sets of tasks, and the weights [T + 1] that turn sums of diameters into cost."""

    sizes: Whole  # [2^T]
    diameters: Whole  # [D, 2^T]
    least: Whole  # [D, 2^T, T + 1]: the least sum of the diameters of j branches
    weights: Whole


def subset_tables(whole: Whole, weights: Whole) -> Tables:
    """Map the whole dissimilarities [D, T, T] and weights [T + 1] of `whole_distances` to the tables over all sets."""
    sizes = np.array([members.bit_count() for members in range(1 << whole.shape[1])])
    diameters = _diameters(whole)
    return Tables(sizes, diameters, _least_sums(sizes, diameters), weights)


def table_bytes(locations: int, tasks: int) -> int:
    """Map the numbers of locations and tasks to the memory that the tables take."""
    return 8 * locations * (tasks + 2) * 2**tasks


def table_work(locations: int, tasks: int) -> int:
    """Map the numbers of locations and tasks to the work of filling the tables, in the units of the search."""
    return locations * tasks * 3**tasks // 100


@njit(cache=True)
def _diameters(whole: Whole) -> Whole:
    locations, tasks = whole.shape[:2]
    diameters = np.zeros((locations, 1 << tasks), dtype=np.int64)
    for location in range(locations):
        for last in range(tasks):
            for members in range(1 << last):
                widest = diameters[location, members]
                for other in range(last):
                    if members >> other & 1:
                        widest = max(widest, whole[location, last, other])
                diameters[location, 1 << last | members] = widest
    return diameters


@njit(cache=True)
def _least_sums(sizes: Whole, diameters: Whole) -> Whole:
    """Some branch holds a set's first task, and what lies beside it is a smaller set: about 3^T / 2 pairs."""
    locations, sets = diameters.shape
    least = np.full((locations, sets, sizes[-1] + 1), NEVER)
    for location in range(locations):
        least[location, 0, 0] = 0
        for members in range(1, sets):
            others = members & (members - 1)
            beside = others
            while beside >= 0:
                own = diameters[location, members ^ beside]
                for j in range(sizes[beside] + 1):
                    total = own + least[location, beside, j]
                    if total < least[location, members, j + 1]:
                        least[location, members, j + 1] = total
                beside = (beside - 1) & others if beside else -1
    return least
