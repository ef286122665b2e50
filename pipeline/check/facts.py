"""What all summaries of columns share: the facts they start from, and how classes, shares and spreads are put."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.spec import Column

FEW, MANY = 5, 8  # classes named at either end of a list; how many are named in full


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A column's facts (`pipeline.check.rows.Seen.facts`) of labelled images, by split; `complete`: of all rows."""

    column: Column
    by_split: Mapping[str, Sequence[Any]]
    complete: bool
    size: tuple[int, int]
    least: int  # datasets.<name>.min_class_count

    @property
    def train(self) -> Sequence[Any]:
        return self.by_split["train"]

    @property
    def every(self) -> list[Any]:
        return [fact for facts in self.by_split.values() for fact in facts]


Found = tuple[dict[str, Any], list[str], list[str]]  # numbers, lines, warnings


def ranking(names: Sequence[str], counts: np.ndarray, what: str) -> tuple[list[str], list[str]]:
    """How often each class occurs: lines on the most and the least frequent, a warning where there is only one."""
    order = [int(k) for k in np.argsort(-counts, kind="stable") if counts[k]]
    words = [f"{names[k]} {counts[k]:,}" for k in order]
    if not order:
        return [], []
    if len(order) == 1 and len(names) > 1:
        return [f"{what}: {words[0]}"], [f"all {what} are {names[order[0]]}"]
    if len(names) == 2:
        return [f"{names[1]} {share_text(counts[1] / counts.sum())} of {counts.sum():,} {what}"], []
    return ends(words, what, f"most {what}", "fewest"), []


def ends(words: Sequence[str], every: str, most: str, least: str) -> list[str]:
    """Words in falling order -> all of them on a line, or where they are many the two ends of the row."""
    if len(words) <= MANY:
        return [f"{every}: {', '.join(words)}"]
    return [f"{most}: {', '.join(words[:FEW])}", f"{least}: {', '.join(words[-FEW:])}"]


def classes_missing(facts: Facts, counts: np.ndarray, what: str) -> tuple[list[str], list[str]]:
    """Classes that training never sees: a warning, or a line where a sample can't tell or they will be dropped."""
    names = facts.column.classes
    absent = [names[k] for k in np.flatnonzero(counts[: len(names)] == 0)]
    if not absent or len(absent) == len(names):
        return [], []
    among = "" if facts.complete else " among those looked at"
    text = f"no {what}{among} for {len(absent):,} of {len(names):,} classes: {listed(absent)}"
    dropped = facts.least > 0 and facts.column.layout == "class"
    return ([], [text]) if facts.complete and not dropped else ([text], [])


def listed(names: Sequence[str], most: int = FEW) -> str:
    """Names -> the first few, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def spread_of(numbers: Sequence[int]) -> dict[str, float]:
    return {"least": min(numbers), "median": float(np.median(numbers)), "most": max(numbers)}


def spread_text(numbers: Sequence[int]) -> str:
    return f"{min(numbers)} to {max(numbers)}, median {np.median(numbers):g}"


def share_text(value: float) -> str:
    return f"{value:.1%}" if value >= 0.001 or value == 0 else "under 0.1%"
