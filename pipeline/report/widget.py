"""What stands in a figure's place on the page: the name of a script and its data."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Widget:
    """An interactive figure: `kind` names a file of pipeline/report/widgets/ (without .js), `data` is JSON for it.

    JSON has no NaN and no infinity: what is not known is None.
    """

    kind: str
    data: Mapping[str, Any]


def plain(value: float | None) -> float | None:
    """Map a number to one that JSON has, to six digits; what is not finite to None."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
