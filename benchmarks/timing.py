"""Several ways of doing one thing -> their times, measured in turn: a busy machine is then as slow for all of them."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds of each round on the clock, and seconds of this process's CPU time."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    def of(self, clock: str) -> Sequence[float]:
        """The rounds by `wall` or `cpu`."""
        return self.wall if clock == "wall" else self.cpu

    def scaled(self, factor: float) -> "Times":
        """The times of so many times as much, of which a part was run."""
        longer = {clock: tuple(seconds * factor for seconds in self.of(clock)) for clock in ("wall", "cpu")}
        return replace(self, **longer)


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
