"""Numbers of a plan as people read them, and tables of them."""

from collections.abc import Mapping, Sequence


def span_text(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def time_text(seconds: float) -> str:
    for unit, size, least in (("days", 86400, 3), ("h", 3600, 1), ("min", 60, 1)):
        if seconds >= least * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} s"


def flops_text(number: float) -> str:
    return _in_units(number, {"EFLOP": 1e18, "PFLOP": 1e15, "TFLOP": 1e12, "GFLOP": 1e9, "MFLOP": 1e6}, "FLOP")


def bytes_text(number: float) -> str:
    return _in_units(number, {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3}, "B")


def _in_units(number: float, units: Mapping[str, float], least: str) -> str:
    """In the largest unit of which there is one, units largest first; below them all in whole ones."""
    for unit, size in units.items():
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number:.0f} {least}"


def count_text(number: int) -> str:
    return f"{number:,}" if number < 10**15 else f"{number:.2g}"


def table(rows: Sequence[tuple[str, ...]], left: Sequence[int]) -> list[str]:
    """Rows under a heading, columns two spaces apart; those in `left` begin at the left, numbers end at the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
