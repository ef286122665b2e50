"""Studies of a paper's own data -> mean accuracy against size, beside what that paper prints on the same axes."""

from collections.abc import Iterator, Sequence
from statistics import mean

from pipeline.report.beside_paper import Mark, draw_marks, paper_handle, size_marks, total_marks
from pipeline.report.network import TRIVIAL
from pipeline.report.point_labels import Point, label_points
from pipeline.report.study import Study
from pipeline.report.style import INK, WIDTH, Drawing, panels
from pipeline.report.tables import result_lines

TAPS = "taps"  # the chapter, and its table of methods


def paper_figures(study: Study) -> Iterator[Drawing]:
    """Map a study to figures with a paper's axes where there is such a paper: CelebA's Table 3, TAPS' totals."""
    if marks := size_marks(study.config):
        lines = [line for line in result_lines(study) if line.name != TRIVIAL]
        points = [Point(x=line.params / 1e6, y=100 * mean(line.test.values()), text=line.label) for line in lines]
        yield _figure("params-accuracy", "budget", "parameters, millions", points, marks)
    methods = [row for chapter in study.chapters for item in chapter.tables() if item.stem == TAPS for row in item.rows]
    tasks = [name.removesuffix(" accuracy") for name in (methods[0] if methods else {}) if name.endswith(" accuracy")]
    if methods and tasks and (marks := total_marks(study.config, tasks)):
        points = [
            Point(x=row["multiple"], y=100 * mean(row[f"{task} accuracy"] for task in tasks), text=row["label"])
            for row in methods
            if all(row[f"{task} accuracy"] is not None for task in tasks)
        ]
        yield _figure("taps_totals", TAPS, "total parameters, multiples of the base network", points, marks)


def _figure(stem: str, section: str, words: str, points: Sequence[Point], marks: Sequence[Mark]) -> Drawing:
    figure, (axes,) = panels(1, columns=1, size=(WIDTH, 4.2))
    ours = axes.plot([point.x for point in points], [point.y for point in points], "o", color=INK, label="this study")
    axes.margins(x=0.1, y=0.15)
    sizes = [place.x for place in (*points, *marks)]
    if max(sizes) > 20 * min(sizes):
        axes.set_xscale("log")
    axes.plot([mark.x for mark in marks], [mark.y for mark in marks], linestyle="none")  # limits before names
    label_points(axes, points)
    draw_marks(axes, marks)
    axes.set_xlabel(words)
    axes.set_ylabel("mean accuracy on test, %")
    figure.legend(handles=[*ours, paper_handle()], loc="outside upper left", ncols=2)
    sources = " and ".join(sorted({mark.source for mark in marks}))
    return Drawing(
        stem=stem,
        section=section,
        caption=f"Size against the mean accuracy over tasks on test; hollow, “paper”: as printed in {sources}, of the"
        " paper's own runs, splits and schedules.",
        figure=figure,
        rows=[{"name": point.text, "source": "this study", "x": point.x, "accuracy": point.y} for point in points]
        + [{"name": mark.label, "source": mark.source, "x": mark.x, "accuracy": mark.y} for mark in marks],
    )
