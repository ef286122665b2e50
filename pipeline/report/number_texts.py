"""Numbers -> text as people read them."""

import math


def value_text(value: float) -> str:
    """Map a metric to three decimals, or to three digits where it is too large or too small for them."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.3f}" if value == 0 or 1e-2 <= abs(value) < 1000 else f"{value:.3g}"


def count_text(count: float) -> str:
    """Map a number of parameters or multiply-adds to millions, few of them to thousands, 1,000 million to billions."""
    unit, name = (1e9, "G") if count >= 1e9 else (1e6, "M") if count >= 1e4 else (1e3, "k")
    return f"{count / unit:.2f} {name}"


def percent_text(value: float) -> str:
    """Map a percentage to one decimal with its sign, and a typographic minus."""
    if not math.isfinite(value):
        return "–"
    return f"{value:+.1f}".replace("-", "−") if round(value, 1) else "0.0"


def large_text(count: int) -> str:
    """Map a count to all its digits, or from ten millions on to a power of ten."""
    if count < 10_000_000:
        return f"{count:,}"
    digits, power = f"{count:.1e}".split("e+")
    return f"{digits} · 10{str(int(power)).translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def number_text(value: float) -> str:
    """Map a correlation to two decimals, with a typographic minus."""
    return f"{value:.2f}".replace("-", "−")


def p_text(p_value: float) -> str:
    """Map a p value to three decimals, or to what it stays under."""
    return f"p = {p_value:.3f}" if p_value >= 0.001 else "p < 0.001"
