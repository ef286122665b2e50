"""A study and its pictures -> the folder of its report: page, pictures as PNG and PDF, tables, settings."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.artifacts import write_json, write_table
from pipeline.report.page import NO_LINKS, params_text, render_page
from pipeline.report.picture import Picture
from pipeline.report.provenance import SETTINGS
from pipeline.report.study import Study
from pipeline.report.tables import SUMMARY, data_tables, headline_metrics, result_lines, summary_rows, write_csv

# Figures whose data `dvc plots` draws as well; from a CSV it would take numbers for text.
PLOTTED = ("params-delta", "affinity", "affinity-depth")


def write_report(
    study: Study, pictures: Sequence[Picture], folder: Path, revision: str, links: Mapping[str, str] = NO_LINKS
) -> None:
    """Write the report of a study with these pictures into an empty folder.

    `links` are the addresses of the jobs' runs, by key.
    """
    for part in ("figures", "tables", "plots"):
        (folder / part).mkdir()
    for picture in pictures:
        (folder / "figures" / f"{picture.stem}.png").write_bytes(picture.png)
        (folder / "figures" / f"{picture.stem}.pdf").write_bytes(picture.pdf)
        write_csv(folder / "tables" / f"{picture.stem}.csv", picture.rows)
        if picture.stem in PLOTTED:
            write_json(folder / "plots" / f"{picture.stem}.json", picture.rows)
    lines = result_lines(study)
    for stem, rows in data_tables(study, lines):
        write_csv(folder / "tables" / f"{stem}.csv", rows)
    write_table(folder / "summary.parquet", summary_rows(study, lines), SUMMARY)
    write_json(folder / "metrics.json", headline_metrics(study))
    (folder / SETTINGS).write_text(params_text(study.config), encoding="utf-8")
    (folder / "index.html").write_text(render_page(study, pictures, revision, links), encoding="utf-8")
