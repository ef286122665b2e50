"""Task adaptive parameter sharing (Wallingford et al. 2022) as a chapter of the report."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.report.chapter import Chapter, Job, PageTable
from pipeline.report.found_taps import TAPS, Run, Taps, read_taps
from pipeline.report.lambda_figure import lambda_figure
from pipeline.report.network import Contender, Network
from pipeline.report.style import Drawing, task_colours
from pipeline.report.taps_contenders import taps_contenders
from pipeline.report.taps_figures import accuracy_figure, params_figure
from pipeline.report.taps_layers import chosen_layers, layers_by_lam
from pipeline.report.taps_tables import methods_table, shares_table
from pipeline.report.taps_words import lead


class TapsChapter(Chapter):
    """What TAPS found, shown with the colours that the tasks have in the study."""

    name, label = TAPS, "TAPS"
    title = "TAPS: layers of its own for each task"

    def __init__(self, taps: Taps, colours: Mapping[str, str]) -> None:
        self.taps, self.colours = taps, colours

    def networks(self) -> Sequence[Network]:
        return self.taps.networks

    def contenders(self, trained: Sequence[Network]) -> Iterator[Contender]:
        return taps_contenders(self.taps, trained)

    def jobs(self) -> Iterator[Job]:
        runs: dict[str, Run] = {}
        for run in self.taps.runs:
            runs.setdefault(run.job, run)  # one job may train several tasks
        for run in runs.values():
            yield Job(name=run.name, keys=(run.job,), seconds=run.seconds, epochs=(run.epoch,))

    def lead(self) -> str:
        return lead(self.taps)

    def tables(self) -> Iterator[PageTable]:
        yield methods_table(self.taps)
        yield shares_table(self.taps)

    def drawings(self) -> Iterator[Drawing]:
        curves = (lambda_figure,) if len(self.taps.by_lam) > 1 else ()
        for draw in (chosen_layers, layers_by_lam, *curves, accuracy_figure, params_figure):
            yield draw(self.taps, self.colours)


def read_taps_chapter(base: Path, tasks: Sequence[str]) -> TapsChapter | None:
    """Map the folder of all artifacts and the study's tasks to the chapter, or to None without results of TAPS."""
    taps = read_taps(base / TAPS / "metrics.json", tasks)
    return TapsChapter(taps, task_colours(tasks)) if taps else None
