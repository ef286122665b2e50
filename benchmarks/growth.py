"""What something takes at a few sizes -> a line with the exponent by which it grows, beside the one expected."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import exp

import numpy as np

from benchmarks.lines import Line, duration, figure
from benchmarks.memory import peak
from benchmarks.timing import in_turn

ROW = 13
UNIT = "exponent"

Ways = Mapping[int, Callable[[], object]]  # by size


def time_growth(what: str, expected: str, ways: Ways, rounds: int = 3) -> Line:
    """The exponent of CPU time over size: by rounds, the slope of the least-squares line through logarithms."""
    return _of_times(what, expected, ways, rounds, exponent, UNIT)


def time_factor(what: str, expected: str, ways: Ways, rounds: int = 3) -> Line:
    """By how much CPU time is multiplied where the size is greater by one, for what grows exponentially."""
    return _of_times(what, expected, ways, rounds, _factor, "times for each more")


def memory_growth(what: str, expected: str, bytes_by_size: Mapping[int, int]) -> Line:
    """The exponent of bytes over size."""
    line = figure(ROW, what, f"expected {expected}", [exponent(bytes_by_size)], UNIT)
    sizes = list(bytes_by_size)
    return replace(line, took=", ".join(f"{_mib(bytes_by_size[size])} at {size:,}" for size in (sizes[0], sizes[-1])))


def exponent(by_size: Mapping[int, float]) -> float:
    """Map sizes and what goes with them to the slope of the line through their logarithms."""
    return _slope(np.log(list(by_size)), list(by_size.values()))


def peaks(ways: Ways) -> dict[int, int]:
    """`benchmarks.memory.peak`, by size."""
    return {size: peak(way) for size, way in ways.items()}


def _of_times(
    what: str,
    expected: str,
    ways: Ways,
    rounds: int,
    fit: Callable[[Mapping[int, float]], float],
    unit: str,
) -> Line:
    sizes = list(ways)
    times = in_turn({str(size): way for size, way in ways.items()}, rounds)
    spent = [times[str(size)].cpu for size in sizes]
    fitted = [fit(dict(zip(sizes, taken, strict=True))) for taken in zip(*spent, strict=True)]
    line = figure(ROW, what, f"expected {expected}", fitted, unit)
    ends = ", ".join(f"{duration(min(spent[end]))} at {sizes[end]:,}" for end in (0, -1))
    return replace(line, clock="cpu", took=ends)


def _factor(by_size: Mapping[int, float]) -> float:
    return exp(_slope(list(by_size), list(by_size.values())))


def _slope(places: Sequence[float] | np.ndarray, values: Sequence[float]) -> float:
    return float(np.polyfit(places, np.log(values), 1)[0])


def _mib(size: int) -> str:
    return f"{size / 2**20:,.3g} MiB"
