"""Study and figures -> one HTML page with everything inside, its scripts too: it needs no network."""

import io
import json
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from ruamel.yaml import YAML

from pipeline.config import Config
from pipeline.report.beside_paper import printed_tables
from pipeline.report.chapter import Job
from pipeline.report.choice import choice_sentences
from pipeline.report.further import further_tables
from pipeline.report.headline import lead, notes, recommendations
from pipeline.report.inline import exact_text, json_text, script_texts, style_text
from pipeline.report.network import SINGLE, TRIVIAL
from pipeline.report.number_texts import count_text, percent_text, value_text
from pipeline.report.picture import Picture
from pipeline.report.provenance import provenance_of
from pipeline.report.study import Study, distinct
from pipeline.report.style import task_colours
from pipeline.report.tables import Line, best_values, result_lines, tree_rows

PACKAGES = ("torch", "torchvision", "timm", "ray", "mlflow", "dvc", "pyarrow", "matplotlib")
WIDE = 8  # tasks up to which the results table has a column for each; above it a row for each
COLUMNS = 12  # up to which a strategy's table stands as it is; above it rows and columns change places
BEFORE_UNIT = re.compile(r"(?<=\d) (?=%|(?:[kMG]|s|min|h)\b)")
NO_LINKS: Mapping[str, str] = {}


def render_page(study: Study, pictures: Sequence[Picture], revision: str, links: Mapping[str, str] = NO_LINKS) -> str:
    """Map a study, its pictures, the git revision and the addresses of jobs' runs by key to the text of index.html."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"value": value_text, "count": count_text, "percent": percent_text, "symbols": _symbols}
    environment.filters |= {"json": json_text, "exact": exact_text}
    lines = result_lines(study)
    sections: dict[str, list[Picture]] = {}
    for picture in pictures:
        sections.setdefault(picture.section, []).append(picture)
    return environment.get_template("page.html.j2").render(
        study=study,
        lead=lead(study),
        choices=list(choice_sentences(study)),
        recommendations=list(recommendations(study)),
        notes=list(notes(study)),
        multiples=_multiples(study),
        lines=lines,
        trees=tree_rows(study),
        wide=WIDE,
        columns=COLUMNS,
        best=_best(study, lines),
        further=[*further_tables(study), *printed_tables(study.config)],
        several=any(line.seeds > 1 for line in lines),
        baseline_names=(TRIVIAL, SINGLE),
        colours=task_colours(study.tasks),
        sections=sections,
        jobs=list(_jobs(study)),
        links=dict(links),
        style=style_text(),
        scripts=script_texts(picture.widget.kind for picture in pictures if picture.widget),
        versions=versions(),
        revision=revision,
        provenance=provenance_of(study, revision),
        params=params_text(study.config),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide results."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def params_text(config: Config) -> str:
    """Map a configuration to YAML, defaults included."""
    buffer = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.dump(json.loads(config.model_dump_json()), buffer)
    return buffer.getvalue()


def _multiples(study: Study) -> str:
    """What an × in a budget multiplies: empty where no budget has one."""
    relative = [tree.request for tree in study.search.asked if "x" in tree.request]
    if any(" " not in request for request in relative):
        return {"params": "parameters", "flops": "multiply-adds"}[study.search.unit]
    return "parameters (params) or multiply-adds (flops)" if relative else ""


def _symbols(text: str) -> Markup:
    """Map plain text to HTML in which Δ_MTL has its index and no line ends between a number and its unit."""
    return Markup(BEFORE_UNIT.sub("\N{NO-BREAK SPACE}", str(escape(text))).replace("Δ_MTL", "Δ<sub>MTL</sub>"))


def _best(study: Study, lines: Sequence[Line]) -> Mapping[str, set[str]]:
    """Map each line's name to the columns in which it is the best of the networks for all tasks."""
    best = best_values(study, lines)
    trained = [line for line in lines if line.name not in (TRIVIAL, SINGLE)]
    top = max((line.delta for line in trained), default=0.0)
    return {
        line.name: {task for task, value in line.test.items() if value == best[task]}
        | ({"Δ_MTL"} if line.delta == top else set())
        for line in trained
    }


def _jobs(study: Study) -> Iterator[Job]:
    """Every trained job once; the seeds of a tree together."""
    for task, row in study.baselines.items():
        yield Job(name=f"{task}, alone", keys=(row.job,), seconds=row.seconds, epochs=(row.epoch,))
    for network, label in distinct(study.trees):
        yield Job(name=label, keys=network.keys, seconds=network.seconds, epochs=network.epochs)
    for chapter in study.chapters:
        yield from chapter.jobs()
