"""Results of all stages -> tables, figures and one page.    python -m stages.report    (seconds)

Leaves artifacts/report/index.html (opens from disk, needs no network), figures/*.png, tables/*.csv with their data,
summary.parquet (one row per network and task) and metrics.json.
"""

from itertools import chain

from pipeline.artifacts import ARTIFACTS, write_json, write_table, writing
from pipeline.report.figures import draw_figures
from pipeline.report.page import picture_of, png_of, render_page
from pipeline.report.samples import draw_contact_sheets, draw_samples
from pipeline.report.study import read_study
from pipeline.report.tables import SUMMARY, data_tables, headline_metrics, result_lines, summary_rows, write_csv
from stages.session import revision, session, start


def main() -> None:
    with session("report") as at:
        study = read_study(at.config, ARTIFACTS)
        lines = result_lines(study)
        with writing("report") as folder:
            for part in ("figures", "tables"):
                (folder / part).mkdir()
            pictures = []
            sheets = chain(draw_samples(study, ARTIFACTS), draw_contact_sheets(study, ARTIFACTS))
            for drawing in chain(draw_figures(study), sheets):
                png = png_of(drawing)
                (folder / "figures" / f"{drawing.stem}.png").write_bytes(png)
                write_csv(folder / "tables" / f"{drawing.stem}.csv", drawing.rows)
                pictures.append(picture_of(drawing, png))
            for stem, rows in data_tables(study, lines):
                write_csv(folder / "tables" / f"{stem}.csv", rows)
            write_table(folder / "summary.parquet", summary_rows(study, lines), SUMMARY)
            write_json(folder / "metrics.json", headline_metrics(study))
            (folder / "index.html").write_text(render_page(study, pictures, revision()), encoding="utf-8")
        for name in ("index.html", "figures", "tables"):
            at.run.artifact(ARTIFACTS / "report" / name)
        at.say(f"report: {len(pictures)} figures, {len(lines)} rows -> {ARTIFACTS / 'report' / 'index.html'}")


if __name__ == "__main__":
    start(main)
