"""What the report says of TAPS is what its stage left, for one task and for forty; without TAPS there is no trace."""

import html
import io
import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from matplotlib import rc_context
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from pipeline.artifacts import write_json
from pipeline.report.budget_figures import parameters_figure
from pipeline.report.figures import draw_figures
from pipeline.report.found_taps import Taps, read_taps
from pipeline.report.number_texts import percent_text, value_text
from pipeline.report.page import render_page
from pipeline.report.point_labels import Point, label_points
from pipeline.report.study import Study, read_study
from pipeline.report.style import STYLE, task_colours
from pipeline.report.tables import SUMMARY, data_tables, result_lines, summary_rows, write_csv
from pipeline.report.taps import TapsChapter
from pipeline.report.taps_figures import accuracy_figure, params_figure
from pipeline.report.taps_layers import SHARED, chosen_layers, layers_by_lam
from pipeline.report.taps_tables import methods_table, shares_table
from pipeline.report.taps_words import lead
from tests.pipeline.cases import DECODING
from tests.pipeline.taps_cases import LAMS, OTHERS, taps_metrics
from tests.pipeline.test_report import Checker, artifacts, study_of

MIXED = ("rmse", "accuracy")  # the metrics of study_of


def chapter_of(folder: Path, raw: dict[str, Any], tasks: list[str]) -> TapsChapter:
    write_json(folder / "metrics.json", raw)
    taps = read_taps(folder / "metrics.json", tasks)
    assert taps is not None
    return TapsChapter(taps, task_colours(tasks))


def taps_of(folder: Path, number: int, **settings: Any) -> tuple[Taps, dict[str, str]]:
    tasks = [f"task {index} with a long name $x_" for index in range(number)]
    chapter = chapter_of(folder, taps_metrics(tasks, **settings), tasks)
    return chapter.taps, dict(chapter.colours)


def study_with_taps(folder: Path, number: int, seeds: int = 1) -> Study:
    """A study whose first task is the base of the others."""
    study = study_of(number, seeds)
    raw = taps_metrics(study.tasks[1:], metrics=MIXED[::-1], networks=study.tasks, base=study.tasks[0])
    return replace(study, chapters=[chapter_of(folder, raw, study.tasks)])


@pytest.mark.parametrize(("number", "layers"), [(1, 25), (2, 53), (10, 120), (13, 25)])
def test_every_figure_has_a_bounded_size_and_its_data(tmp_path: Path, number: int, layers: int) -> None:
    taps, colours = taps_of(tmp_path, number, layers=layers, metrics=MIXED)
    with rc_context(STYLE):
        drawings = list(TapsChapter(taps, colours).drawings())
    assert len({drawing.stem for drawing in drawings}) == len(drawings) == 5
    for drawing in drawings:
        drawing.figure.savefig(io.BytesIO(), format="png", dpi=30)
        assert drawing.figure.get_figwidth() == pytest.approx(10.5)
        assert 1 < drawing.figure.get_figheight() < 30
        assert drawing.rows
        assert len({tuple(row) for row in drawing.rows}) == 1, "rows of one table have one set of columns"


def test_the_map_colours_the_open_gates_and_stronger_the_higher_their_score(tmp_path: Path) -> None:
    taps, colours = taps_of(tmp_path, 3)
    figure = chosen_layers(taps, colours).figure
    (image,) = figure.axes[0].images
    cells_RL3 = np.asarray(image.get_array())
    counts = [text.get_text() for text in figure.axes[0].texts]
    for row, target in enumerate(taps.tasks.values()):
        run = taps.run[target.chosen]
        assert run.active is not None
        assert run.scores is not None
        coloured_L = (np.abs(cells_RL3[row] - to_rgb(SHARED)) > 1e-6).any(1)
        assert coloured_L.tolist() == list(run.active)
        assert counts[row] == f"{sum(run.active)}/{len(taps.layers)}"
        by_score = [cells_RL3[row, place] for place in np.argsort(run.scores) if run.active[place]]
        assert all((one >= other - 1e-9).all() for one, other in pairwise(by_score)), "darker"


def test_a_task_without_layers_of_its_own_has_a_pale_row(tmp_path: Path) -> None:
    taps, colours = taps_of(tmp_path, 2)
    runs = [replace(run, active=[False] * 25) if run.active else run for run in taps.runs]
    figure = chosen_layers(replace(taps, runs=runs), colours).figure
    assert np.allclose(np.asarray(figure.axes[0].images[0].get_array()), to_rgb(SHARED))
    assert {text.get_text() for text in figure.axes[0].texts} == {"0/25"}


@pytest.mark.parametrize(("number", "layers"), [(1, 25), (5, 25), (5, 120)])
def test_each_task_has_a_map_with_a_row_for_every_lam(tmp_path: Path, number: int, layers: int) -> None:
    taps, colours = taps_of(tmp_path, number, layers=layers)
    figure = layers_by_lam(taps, colours).figure
    maps = [axis for axis in figure.axes if axis.get_visible()]
    assert len(maps) == number
    for axis in maps:
        assert [label.get_text() for label in axis.get_yticklabels()] == [f"λ {lam:g}" for lam in LAMS]
        assert np.asarray(axis.images[0].get_array()).shape == (len(LAMS), layers, 3)
    named = [axis for axis in maps if len(axis.get_xticks())]
    assert named
    assert len({axis.get_subplotspec().get_geometry()[2] // 2 for axis in named}) == 1, "below one row of maps alone"  # pyright: ignore[reportOptionalMemberAccess]


def test_accuracy_over_layers_joins_the_runs_by_lam_between_the_yardsticks(tmp_path: Path) -> None:
    taps, colours = taps_of(tmp_path, 2, metrics=MIXED)
    for axis, task in zip(accuracy_figure(taps, colours).figure.axes, taps.tasks, strict=True):
        runs = {run.lam: run for run in taps.runs if run.task == task and run.method == "taps"}
        wanted = [[100 * (runs[lam].layers_share or 0), runs[lam].test] for lam in LAMS]
        drawn = [np.asarray(line.get_xydata()) for line in axis.lines]
        assert any(len(line) == len(wanted) and np.allclose(line, wanted) for line in drawn)
        level = {line.get_linestyle(): list(np.asarray(line.get_ydata())) for line in axis.lines}
        for style, method in (("--", "fine_tuning"), (":", "feature_extractor")):
            (run,) = [run for run in taps.runs if (run.task, run.method) == (task, method)]
            assert level[style] == [run.test] * 2
        assert {text.get_text() for text in axis.texts} == {f"{lam:g}" for lam in LAMS}


def test_the_parameters_of_every_method_are_drawn_far_apart_on_a_logarithmic_axis(tmp_path: Path) -> None:
    taps, colours = taps_of(tmp_path, 2)
    for axis, task in zip(params_figure(taps, colours).figure.axes, taps.tasks, strict=True):
        drawn = {tuple(place) for line in axis.lines for place in np.asarray(line.get_xydata()).tolist()}
        assert {(100 * run.params_share, run.test) for run in taps.runs if run.task == task} <= drawn
        assert axis.get_xscale() == "symlog", "the feature extractor adds nothing"
    near = replace(taps, runs=[replace(run, params_share=0.5 + 0.4 * run.params_share) for run in taps.runs])
    assert {axis.get_xscale() for axis in params_figure(near, colours).figure.axes} == {"linear"}


def test_without_other_methods_the_figures_hold(tmp_path: Path) -> None:
    taps, colours = taps_of(tmp_path, 2)
    alone = replace(taps, methods=[row for row in taps.methods if row.method == "taps"])
    for drawing in TapsChapter(alone, colours).drawings():
        drawing.figure.savefig(io.BytesIO(), format="png", dpi=30)
    assert "not compared with fine-tuning" in lead(alone)


def test_the_table_of_methods_marks_the_best_and_names_the_job_of_each_number(tmp_path: Path) -> None:
    raw = taps_metrics(["a", "b"], metrics=MIXED)
    taps = chapter_of(tmp_path, raw, ["a", "b"]).taps
    head, *lines = methods_table(taps).lines
    assert [cell.text for cell in head] == ["", "a", "b", "S-score", "parameters", "storage"], "no mixed mean"
    runs = {run["name"]: run for run in raw["runs"]}
    for column, (task, pick) in enumerate([("a", min), ("b", max)], 1):
        best = pick(row["test"][task] for row in raw["methods"])
        for line, row in zip(lines, raw["methods"], strict=True):
            assert line[column].text == value_text(row["test"][task])
            assert line[column].job == runs[row["runs"][task]]["job"]
            assert line[column].best == (row["test"][task] == best)
    assert [line[3].best for line in lines].count(True) == 1
    assert not any(cell.best for line in lines for cell in line[4:]), "nothing at all costs least: no merit"


@pytest.mark.parametrize(("metric", "pick"), [("accuracy", max), ("rmse", min)])
def test_the_best_mean_follows_the_metric(tmp_path: Path, metric: str, pick: Any) -> None:
    raw = taps_metrics(["a", "b"], metrics=[metric])
    head, *lines = methods_table(chapter_of(tmp_path, raw, ["a", "b"]).taps).lines
    place = [cell.text for cell in head].index("mean")
    best = pick(row["mean"] for row in raw["methods"])
    assert {line[place].text for line in lines if line[place].best} == {value_text(best)}


def test_what_no_method_has_gets_no_column_and_a_missing_number_a_dash(tmp_path: Path) -> None:
    raw = taps_metrics(["a", "b"])
    for row in raw["methods"]:
        row["s_score"] = None
    del raw["methods"][-1]["test"]["b"], raw["methods"][-1]["runs"]["b"]
    table = methods_table(chapter_of(tmp_path, raw, ["a", "b"]).taps)
    assert "S-score" not in [cell.text for cell in table.lines[0]]
    assert "S-score" not in table.caption
    assert table.lines[-1][2].text == "–"
    write_csv(tmp_path / "taps.csv", table.rows)


def test_the_table_of_shares_is_that_of_the_runs(tmp_path: Path) -> None:
    taps, _ = taps_of(tmp_path, 3)
    table = shares_table(taps)
    assert len(table.lines) == 1 + 2 * len(LAMS)
    for place, lam in enumerate(LAMS):
        for column, task in enumerate(taps.tasks, 1):
            (run,) = [run for run in taps.runs if (run.task, run.lam) == (task, lam)]
            params, layers = table.lines[1 + 2 * place][column], table.lines[2 + 2 * place][column]
            assert float(params.text) == pytest.approx(100 * run.params_share, abs=0.006)
            assert float(layers.text) == pytest.approx(100 * np.mean(run.active or ()), abs=0.006)
            assert params.job == layers.job == run.job
    assert len(table.rows) == len(LAMS) * 3


def with_tests(taps: Taps, values: dict[str, float]) -> Taps:
    """The same results with one value a method on every task; the TAPS rows share one."""
    methods = [replace(row, test={t: values.get(row.method, 0.1) for t in taps.tasks}) for row in taps.methods]
    return replace(taps, methods=methods)


def test_the_sentence_says_where_taps_stands(tmp_path: Path) -> None:
    taps, _ = taps_of(tmp_path, 4)
    shares = [taps.run[target.chosen].layers_share or 0 for target in taps.tasks.values()]
    behind = lead(with_tests(taps, {"taps": 0.8, "fine_tuning": 0.9, "feature_extractor": 0.5}))
    assert f"{100 * mean(shares):.0f} % of the layers" in behind
    assert f"{taps.chosen.multiple:.2f} × the base network's parameters" in behind
    assert "11.1 % behind fine-tuning (mean relative change), behind on 4 of 4 tasks" in behind
    assert f"new heads alone {percent_text(60)} %" in behind
    assert "does better" not in behind
    ahead = lead(with_tests(taps, {"taps": 0.9, "fine_tuning": 0.8, "lora": 0.95}))
    assert "12.5 % ahead of fine-tuning (mean relative change), and behind on no task" in ahead
    cheap = f"With no more parameters ({1 + 4 * OTHERS['lora'][1]:.2f} ×) LoRA does better: +5.6 % against TAPS."
    assert ahead.endswith(cheap)
    assert "does better" not in lead(with_tests(taps, {"taps": 0.8, "fine_tuning": 0.9}))
    assert "λ between 0.25 and 0.5, chosen for each task" in behind


@pytest.mark.parametrize(
    ("kind", "joint", "words"),
    [("shared", False, "fully shared"), ("pretrained", False, "pretrained"), ("task", True, "network of x, which was")],
)
def test_the_sentence_names_the_base(tmp_path: Path, kind: str, joint: bool, words: str) -> None:
    taps, _ = taps_of(tmp_path, 2)
    assert words in lead(replace(taps, base=replace(taps.base, kind=kind, name="x"), joint=joint))


def test_the_networks_are_rows_of_the_results_and_points_of_the_plane(tmp_path: Path) -> None:
    study = study_with_taps(tmp_path, 3, seeds=2)
    networks = study.chapters[0].networks()
    lines = result_lines(study)
    assert [line.name for line in lines[-len(networks) :]] == [network.name for network in networks]
    table = pa.Table.from_pylist(list(summary_rows(study, lines)), schema=SUMMARY)
    rows = [row for row in table.to_pylist() if row["strategy"] == "taps"]
    assert len(rows) == len(networks) * 3
    points = {tuple(p) for line in parameters_figure(study).figure.axes[0].lines for p in np.asarray(line.get_xydata())}
    for network in networks:
        mine = [row for row in rows if row["name"] == network.name]
        changes = [
            100 * (row["test"] - row["single_test"]) / row["single_test"] * (1 if row["higher_is_better"] else -1)
            for row in mine
        ]
        assert mine[0]["delta_mtl"] == pytest.approx(mean(changes))
        assert any(np.allclose(point, (network.params / 1e6, mean(changes))) for point in points)
        assert mine[0]["seeds"] == 1
        assert set(mine[0]["jobs"].split(" key")) >= {network.keys[-1].removeprefix("key")}
    drawn = {row["name"] for row in parameters_figure(study).rows}
    assert {network.name for network in networks} <= drawn


@pytest.mark.parametrize(("number", "turned"), [(2, 0), (4, 0), (12, 1), (15, 2)])
def test_the_page_shows_taps_and_every_link_leads_to_a_job(tmp_path: Path, number: int, turned: int) -> None:
    study = study_with_taps(tmp_path, number)
    text = render_page(study, [], "none")
    checker = Checker()
    checker.feed(text)
    assert not checker.open
    targets = [html.unescape(target) for target in re.findall(r'id="([^"]+)"', text)]
    assert len(set(targets)) == len(targets)
    assert {address[1:] for address in checker.addresses if address.startswith("#")} <= set(targets)
    section = text[text.index('<section id="taps"') : text.index('<section id="changes"')]
    for run in study.chapters[0].networks():
        assert run.label in text
    assert section.count("<table") == 2
    assert section.count('class="data tall"') == turned, "a table that would be too wide is turned"
    assert section.count('href="#job-') == (len(LAMS) + 1 + len(OTHERS) + 2 * len(LAMS)) * (number - 1)
    assert {name for name, _ in data_tables(study, result_lines(study))} == {"results", "taps", "taps_shares"}


def test_tasks_stand_in_the_order_of_the_study(tmp_path: Path) -> None:
    tasks = ["b", "a", "not learnt", "c"]
    taps = chapter_of(tmp_path, taps_metrics(["a", "b", "c"]), tasks).taps
    assert list(taps.tasks) == ["b", "a", "c"]


def test_a_job_that_trained_several_tasks_is_listed_once(tmp_path: Path) -> None:
    raw = taps_metrics(["a", "b"])
    for run in raw["runs"]:
        run["job"] = "one"
    (job,) = chapter_of(tmp_path, raw, ["a", "b"]).jobs()
    assert job.keys == ("one",)
    assert job.seconds == 12.3


def test_without_results_there_is_no_chapter(tmp_path: Path) -> None:
    assert read_taps(tmp_path / "metrics.json", ["a"]) is None
    write_json(tmp_path / "metrics.json", {**taps_metrics(["a"]), "runs": []})
    assert read_taps(tmp_path / "metrics.json", ["a"]) is None
    page = render_page(study_of(3), [], "none")
    assert "TAPS" not in page
    assert 'id="taps"' not in page


@pytest.mark.filterwarnings(DECODING)
def test_from_files_to_figures(tmp_path: Path) -> None:
    config = artifacts(tmp_path)
    assert not read_study(config, tmp_path).chapters
    (tmp_path / "taps").mkdir()
    raw = taps_metrics(["depth"], metrics=["rmse"], networks=["kind", "depth"], base="kind")
    write_json(tmp_path / "taps" / "metrics.json", raw)
    study = read_study(config, tmp_path)
    assert [network.strategy for network in study.networks] == ["branched"] + ["taps"] * (len(LAMS) + 1)
    assert all(math.isfinite(delta) for network in study.networks for delta in study.deltas(network))
    stems = [drawing.stem for drawing in draw_figures(study)]
    assert [stem for stem in stems if "taps" in stem] == [
        "taps_layers",
        "taps_layers_lam",
        "taps_lambda",
        "taps_accuracy",
        "taps_params",
    ]


def test_names_on_a_logarithmic_axis_cover_nothing() -> None:
    figure = Figure(figsize=(4, 3))
    axes = figure.add_subplot()
    axes.set_xscale("log")
    places = [(0.1, 1.0), (1.0, 1.0), (10.0, 1.0), (11.0, 1.05)]
    axes.plot(*zip(*places, strict=True), "o")
    axes.margins(0.15, 0.3)
    label_points(axes, [Point(x=x, y=y, text=f"{x:g}") for x, y in places], (4, 3))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:index])
        assert not any(box.contains(*axes.transData.transform(place)) for place in places)
