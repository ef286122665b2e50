"""What task kinds measure beside their primary metric -> a table of the page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from models.tasks import TASKS
from models.tasks.base import Measure
from pipeline.jobs import task_specs
from pipeline.report.cells import best_of, value_cell
from pipeline.report.chapter import Cell, PageTable
from pipeline.report.network import SINGLE
from pipeline.report.records import mean_of
from pipeline.report.study import Study, distinct

CAPTION = "What each task's kind measures on test beside its primary metric, at the same epoch; means over seeds."


@dataclass(frozen=True, kw_only=True)
class Column:
    """A measure of a task, with the values of the networks that have it, by name."""

    task: str
    measure: Measure
    values: Mapping[str, float | None]

    @property
    def head(self) -> Cell:
        arrow = "↑" if self.measure.higher_is_better else "↓"
        return Cell(
            text=self.task, small=f"{self.measure.name} {self.measure.unit}".rstrip() + f" {arrow}", task=self.task
        )

    @property
    def best(self) -> float | None:
        """That of the networks for all tasks."""
        return best_of((v for name, v in self.values.items() if name != SINGLE), self.measure.higher_is_better)


def further_tables(study: Study) -> Iterator[PageTable]:
    """Map a study to its table of further measures; to nothing where no job has any."""
    keys = {SINGLE: [row.job for row in study.baselines.values()]}
    keys |= {network.name: network.keys for network, _ in distinct(study.networks)}
    labels = {SINGLE: "single-task networks"} | {network.name: label for network, label in distinct(study.networks)}
    columns = [
        Column(
            task=spec.name,
            measure=measure,
            values={name: _value(study, jobs, spec.name, measure.name) for name, jobs in keys.items()},
        )
        for spec in task_specs(study.config, study.manifests)
        for measure in TASKS[spec.kind](spec).further
    ]
    if all(value is None for column in columns for value in column.values.values()):
        return
    lines = [[Cell(text="network"), *(column.head for column in columns)]]
    lines += [
        [Cell(text=label), *(value_cell(column.values[name], column.best) for column in columns)]
        for name, label in labels.items()
    ]
    yield PageTable(stem="further", title="Further metrics", caption=CAPTION, lines=lines, rows=_rows(columns, labels))


def _value(study: Study, jobs: Sequence[str], task: str, measure: str) -> float | None:
    """The mean over the jobs of a network that measured it."""
    return mean_of(study.measured.get((job, task, measure)) for job in jobs)


def _rows(columns: Sequence[Column], labels: Mapping[str, str]) -> list[dict]:
    return [
        {"name": name, "task": column.task, "measure": column.measure.name, "unit": column.measure.unit}
        | {"higher_is_better": column.measure.higher_is_better, "test": column.values[name]}
        for name in labels
        for column in columns
    ]
