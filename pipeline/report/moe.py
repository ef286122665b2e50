"""Multi-task heterogeneous learning with experts (MTHL) as a chapter of the report."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.artifacts import read_json
from pipeline.report.chapter import Chapter, Job, PageTable
from pipeline.report.found_moe import MOE, Moe, read_moe
from pipeline.report.moe_contenders import moe_contenders
from pipeline.report.moe_figures import information_figure, quality_figure, usage_figure
from pipeline.report.moe_tables import information_table, methods_table
from pipeline.report.moe_words import lead
from pipeline.report.network import Contender, Network
from pipeline.report.style import Drawing


class MoeChapter(Chapter):
    """What training with experts found."""

    name, label = MOE, "MoE"
    title = "MoE: experts for each data set"

    def __init__(self, moe: Moe) -> None:
        self.moe = moe

    def networks(self) -> Sequence[Network]:
        return self.moe.networks

    def contenders(self, trained: Sequence[Network]) -> Iterator[Contender]:
        return moe_contenders(self.moe, trained)

    def jobs(self) -> Iterator[Job]:
        """Every job of the stage; the single-task networks are those of another one."""
        singles = {single.job: single for single in self.moe.singles.values()}
        for run in self.moe.runs:
            own = [(job, epoch) for job, epoch in zip(run.jobs, run.epochs, strict=True) if job not in singles]
            if own:
                keys, epochs = zip(*own, strict=True)
                seconds = run.seconds - sum(singles[job].seconds for job in run.jobs if job in singles)
                yield Job(name=run.label, keys=keys, seconds=seconds, epochs=epochs)

    def lead(self) -> str:
        return lead(self.moe)

    def tables(self) -> Iterator[PageTable]:
        yield methods_table(self.moe)
        if len(self.moe.datasets) > 1:
            yield information_table(self.moe)

    def drawings(self) -> Iterator[Drawing]:
        yield quality_figure(self.moe)
        yield usage_figure(self.moe)
        if len(self.moe.datasets) > 1 and len(self.moe.layers) > 1:
            yield information_figure(self.moe)


def read_moe_chapter(base: Path, tasks: Sequence[str]) -> MoeChapter | None:
    """Map the folder of all artifacts and the study's tasks to the chapter, or to None without networks of experts."""
    moe = read_moe(base / MOE / "metrics.json", tasks, read_json(base / "pretrain" / "metrics.json"))
    return MoeChapter(moe) if moe else None
