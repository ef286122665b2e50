"""Cells and words that the tables of several strategies share."""

from collections.abc import Iterable, Mapping

from pipeline.report.chapter import Cell
from pipeline.report.number_texts import value_text
from pipeline.report.records import Measured

NONE = Cell(text="–")


def task_heads(tasks: Mapping[str, Measured]) -> list[Cell]:
    """Map tasks to the heads of their columns: name, metric, and which way it points."""
    return [
        Cell(text=task, small=f"{row.metric} {'↑' if row.higher_is_better else '↓'}", task=task)
        for task, row in tasks.items()
    ]


def value_cell(value: float | None, best: float | None, job: str = "") -> Cell:
    """Map a metric, or none, to its cell, bold where it is the best."""
    return NONE if value is None else Cell(text=value_text(value), job=job, best=value == best, value=value)


def best_of(values: Iterable[float | None], higher_is_better: bool = True) -> float | None:
    """The best of the values that there are."""
    return (max if higher_is_better else min)((value for value in values if value is not None), default=None)


def seed_words(seeds: Iterable[int]) -> str:
    """What the number of seeds lets one conclude."""
    found = sorted(set(seeds))
    return "One seed each: small leads mean nothing." if len(found) == 1 else f"Seeds {', '.join(map(str, found))}."
