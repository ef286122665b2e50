"""A study -> the folder of its report: the page, every figure as PNG and PDF, every table, the settings."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from matplotlib import rc_context

from pipeline.artifacts import write_json, write_table
from pipeline.report.beside_paper import beside_paper
from pipeline.report.figures import draw_figures
from pipeline.report.page import NO_LINKS, Picture, params_text, picture_of, png_of, render_page
from pipeline.report.paper_figures import paper_figures
from pipeline.report.pdf import pdf_of
from pipeline.report.provenance import SETTINGS
from pipeline.report.samples import draw_contact_sheets, draw_samples
from pipeline.report.study import Study
from pipeline.report.style import STYLE, Drawing
from pipeline.report.tables import SUMMARY, data_tables, headline_metrics, result_lines, summary_rows, write_csv
from pipeline.report.worst_samples import draw_worst

# Figures whose data `dvc plots` draws as well; from a CSV it would take numbers for text.
PLOTTED = ("params-delta", "affinity", "affinity-depth")


def write_report(
    study: Study, drawings: Iterable[Drawing], folder: Path, revision: str, links: Mapping[str, str] = NO_LINKS
) -> list[Picture]:
    """Write the report of a study with these figures into an empty folder; give the pictures of its page.

    `links` are the addresses of the jobs' runs, by key.
    """
    for part in ("figures", "tables", "plots"):
        (folder / part).mkdir()
    pictures, lines = [], result_lines(study)
    for drawing in drawings:
        png = png_of(drawing)
        (folder / "figures" / f"{drawing.stem}.png").write_bytes(png)
        drawing.figure.set_layout_engine("none")  # it is laid out: to find the same places again takes seconds
        (folder / "figures" / f"{drawing.stem}.pdf").write_bytes(pdf_of(drawing))
        write_csv(folder / "tables" / f"{drawing.stem}.csv", drawing.rows)
        if drawing.stem in PLOTTED:
            write_json(folder / "plots" / f"{drawing.stem}.json", drawing.rows)
        pictures.append(picture_of(drawing, png))
    for stem, rows in data_tables(study, lines):
        write_csv(folder / "tables" / f"{stem}.csv", rows)
    write_table(folder / "summary.parquet", summary_rows(study, lines), SUMMARY)
    write_json(folder / "metrics.json", headline_metrics(study))
    (folder / SETTINGS).write_text(params_text(study.config), encoding="utf-8")
    (folder / "index.html").write_text(render_page(study, pictures, revision, links), encoding="utf-8")
    return pictures


def draw_all(study: Study, base: Path) -> Iterator[Drawing]:
    """Map a study and the folder of all artifacts to its figures, in the order of the page."""
    yield from draw_results(study)
    for sheets in (draw_samples, draw_worst, draw_contact_sheets):
        yield from sheets(study, base)


def draw_results(study: Study) -> Iterator[Drawing]:
    """Map a study to the figures of its results, with what a paper prints beside those of the same axes."""
    with rc_context(STYLE):
        for drawing in chain(draw_figures(study), paper_figures(study)):
            yield beside_paper(drawing, study.config)
