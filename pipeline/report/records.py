"""Rows of a stage's metrics.json -> records of the report."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from statistics import mean
from typing import Any, Protocol, TypeVar

from models.accounting import delta_mtl
from pipeline.report.network import Network, Row

Record = TypeVar("Record")


class Measured(Protocol):
    """What has a metric: a task of any strategy."""

    @property
    def metric(self) -> str: ...

    @property
    def higher_is_better(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A task's one primary metric."""

    metric: str
    higher_is_better: bool


def pick(kind: type[Record], row: Row) -> Record:
    """The fields that a record has; the file may hold more."""
    return kind(**{field.name: row[field.name] for field in fields(kind)})  # pyright: ignore[reportArgumentType]


def network_of(row: Row, strategy: str, seed: int) -> Network:
    """Map a stage's row for a network for all tasks, trained with one seed, to a network of the study."""
    values: dict[str, Any] = {
        split: {task: (value,) for task, value in row[split].items()} for split in ("val", "test")
    }
    return Network(
        name=row["name"],
        label=row["label"],
        strategy=strategy,
        request="",
        params=row["params"],
        flops=row["flops"],
        seconds=row["seconds"],
        seeds=(seed,),
        keys=tuple(row["keys"]),
        epochs=tuple(row["epochs"]),
        **values,
    )


def change(task: Measured, value: float, reference: float) -> float | None:
    """Map a value to its signed relative change, in percent; a reference of 0 allows none."""
    return delta_mtl({"": value}, {"": reference}, {"": task.higher_is_better}) if reference else None


def mean_change(
    tasks: Mapping[str, Measured], values: Mapping[str, float], references: Mapping[str, float]
) -> float | None:
    """Map values of tasks to the mean of those signed relative changes that there are, in percent."""
    both = [task for task in tasks if task in values and task in references]
    return mean_of(change(tasks[task], values[task], references[task]) for task in both)


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of the values that there are."""
    known = [value for value in values if value is not None]
    return mean(known) if known else None
