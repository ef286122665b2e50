"""A study -> the pictures of its report in the order of the page, drawn by several processes of this machine."""

import os
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import torch
from matplotlib import rc_context

from pipeline.machine import Machine
from pipeline.processes import in_processes
from pipeline.report.beside_paper import beside_paper
from pipeline.report.figures import draw_figures
from pipeline.report.paper_figures import paper_figures
from pipeline.report.picture import Picture, picture_of
from pipeline.report.samples import draw_contact_sheets, draw_samples
from pipeline.report.study import Study
from pipeline.report.style import STYLE, Drawing
from pipeline.report.worst_samples import draw_worst


def draw_results(study: Study, _: Path) -> Iterator[Drawing]:
    """Map a study to the figures of its results, with what a paper prints beside those of the same axes."""
    with rc_context(STYLE):
        for drawing in chain(draw_figures(study), paper_figures(study)):
            yield beside_paper(drawing, study.config)


# The page's pictures in parts that need nothing of one another: each maps a study and the folder of all artifacts.
PARTS: tuple[Callable[[Study, Path], Iterator[Drawing]], ...] = (
    draw_results,
    draw_samples,
    draw_worst,
    draw_contact_sheets,
)


def draw_all(study: Study, base: Path, machine: Machine, say: Callable[[int], None]) -> list[Picture]:
    """Map a study and the folder of all artifacts to its pictures; tell how many are drawn whenever a part is."""
    cores = os.cpu_count() or 1
    workers = min(len(PARTS), machine.prepare_workers or cores)
    given, drawn = (study, base, max(1, cores // workers)), dict[int, list[Picture]]()
    for part, pictures in in_processes(_draw, given, range(len(PARTS)), workers, machine.max_failures):
        drawn[part] = pictures
        say(sum(map(len, drawn.values())))
    return [picture for part in sorted(drawn) for picture in drawn[part]]


def _draw(given: tuple[Study, Path, int], part: int) -> list[Picture]:
    study, base, threads = given
    torch.set_num_threads(threads)  # all cores in each process would slow one another
    return [picture_of(drawing) for drawing in PARTS[part](study, base)]
