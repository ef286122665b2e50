"""Several ways of doing one thing -> their times, measured in turn: a busy machine is then as slow for all of them."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds of each round on the clock, and seconds of this process's CPU time."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def text(self) -> str:
        return f"{min(self.wall):.3f} s (median {median(self.wall):.3f}, CPU {min(self.cpu):.3f})"


def in_turn(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Times]:
    """Map named ways to their times over some rounds; each round runs all of them, every other one in reverse order.

    One more round goes before, to warm up, and does not count.
    """
    names = list(ways)
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name in names if turn % 2 else names[::-1]:
            wall, cpu = time.perf_counter(), time.process_time()
            ways[name]()
            spent[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: Times(wall=tuple(wall for wall, _ in taken[1:]), cpu=tuple(cpu for _, cpu in taken[1:]))
        for name, taken in spent.items()
    }


def ratio(left: Times, right: Times) -> str:
    """How many times as long the left way takes, by the fastest round, on the clock and in CPU time."""
    return f"{min(left.wall) / min(right.wall):.2f} (CPU {min(left.cpu) / min(right.cpu):.2f})"
