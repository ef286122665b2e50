"""A network with experts adapted to new data sets, and taught them one after another, as a chapter of the report."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.report.adapt_figures import trade_off_figure, usage_figure
from pipeline.report.adapt_tables import modes_table
from pipeline.report.adapt_words import lead
from pipeline.report.chapter import Chapter, Job, PageTable
from pipeline.report.continual_tables import continual_table, forgetting_table
from pipeline.report.forgetting_figure import forgetting_figure
from pipeline.report.found_adapt import ROUTER, Adapt, Run, read_adapt
from pipeline.report.network import Contender, Network
from pipeline.report.style import Drawing

ADAPT = "adapt"


class AdaptChapter(Chapter):
    """What adapting found."""

    name, label = ADAPT, "Adapting"
    title = "Adapting the experts to new data sets"

    def __init__(self, adapt: Adapt) -> None:
        self.adapt = adapt

    def networks(self) -> Sequence[Network]:
        """None: each network that was adapted is for one task."""
        return ()

    def contenders(self, trained: Sequence[Network]) -> Iterator[Contender]:  # noqa: ARG002
        """None, likewise."""
        return iter(())

    def jobs(self) -> Iterator[Job]:
        """Every job of the stage; the base is one of the moe stage."""
        runs: dict[str, Run] = {}
        for run in self.adapt.runs:
            runs.setdefault(run.job, run)  # what is learned one after another may start with a mode's own job
        for run in runs.values():
            yield Job(name=run.name, keys=(run.job,), seconds=run.seconds, epochs=(run.epoch,))

    def lead(self) -> str:
        return lead(self.adapt)

    def tables(self) -> Iterator[PageTable]:
        if self.adapt.modes:
            yield modes_table(self.adapt)
        if self.adapt.continual:
            yield continual_table(self.adapt, self.adapt.continual)
            yield forgetting_table(self.adapt, self.adapt.continual)

    def drawings(self) -> Iterator[Drawing]:
        if len(self.adapt.modes) > 1:
            yield trade_off_figure(self.adapt)
        if self.adapt.mode(ROUTER):
            yield usage_figure(self.adapt)
        if self.adapt.continual:
            yield forgetting_figure(self.adapt, self.adapt.continual)


def read_adapt_chapter(base: Path, tasks: Sequence[str]) -> AdaptChapter | None:
    """Map the folder of all artifacts and the study's tasks to the chapter, or to None where nothing was adapted."""
    adapt = read_adapt(base / ADAPT / "metrics.json", tasks)
    return AdaptChapter(adapt) if adapt else None
