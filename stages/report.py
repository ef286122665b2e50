"""Results of all stages -> tables, figures and one page.    python -m stages.report    (a minute)

Leaves artifacts/report/index.html (opens from disk, needs no network), figures/ (PNG and PDF), tables/*.csv with their
data, summary.parquet (one row per network and task), metrics.json and params.yaml, the study's settings.
"""

from pipeline.artifacts import ARTIFACTS, writing
from pipeline.config import ROOT
from pipeline.plan_text import bytes_text
from pipeline.registering import record_networks
from pipeline.report.choice import choice_sentences
from pipeline.report.drawing import draw_all
from pipeline.report.folder import write_report
from pipeline.report.study import read_study
from pipeline.result_lines import choice_lines
from pipeline.spool import run_address, sent_runs, spool_folder
from pipeline.terminal import labelled
from stages.session import revision, session, start


def main() -> None:
    with session("report") as at:
        study, uri = read_study(at.config, ARTIFACTS), at.machine.tracking_uri or ""
        sent = sent_runs(spool_folder(at.machine.storage), uri)
        links = {key: run_address(uri, run) for key, run in sent.items()}
        pictures = draw_all(
            study, ARTIFACTS, at.machine, lambda drawn: at.progress(f"{drawn} figures drawn", in_pipes=False)
        )
        with writing("report") as folder:
            write_report(study, pictures, folder, revision(), links)
        for name in ("index.html", "figures", "tables"):
            at.run.artifact(ARTIFACTS / "report" / name)
        if said := record_networks(study, at.machine, ARTIFACTS, at.tracker, at.run, at.tags):
            at.say(said)
        page = ARTIFACTS / "report" / "index.html"
        size = bytes_text(page.stat().st_size)
        at.result(f"{page.relative_to(ROOT)}: {size}, {len(pictures)} figures, beside it their data as tables/*.csv")
    print(labelled("choice", choice_lines(choice_sentences(study))), flush=True)


if __name__ == "__main__":
    start(main, logged=True)
