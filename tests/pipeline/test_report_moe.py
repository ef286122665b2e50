"""What the report says of the networks with experts is what their stage left; without experts there is no trace."""

import html
import io
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
from matplotlib import rc_context

from pipeline.artifacts import write_json
from pipeline.report.adapt import AdaptChapter
from pipeline.report.figures import draw_figures
from pipeline.report.found_adapt import read_adapt
from pipeline.report.found_moe import Moe, read_moe
from pipeline.report.moe import MoeChapter
from pipeline.report.moe_figures import information_figure, quality_figure, usage_figure
from pipeline.report.moe_tables import information_table, methods_table
from pipeline.report.moe_words import lead
from pipeline.report.number_texts import percent_text, value_text
from pipeline.report.page import render_page
from pipeline.report.study import Study, read_study
from pipeline.report.style import STYLE
from pipeline.report.tables import data_tables, result_lines, write_csv
from pipeline.report.usage_maps import expert_order, shared_experts
from tests.pipeline.cases import DECODING
from tests.pipeline.moe_cases import TASKS, adapt_metrics, moe_metrics
from tests.pipeline.test_report import Checker, artifacts, study_of


def moe_of(folder: Path, raw: dict[str, Any], tasks: Sequence[str] | None = None) -> Moe:
    write_json(folder / "moe.json", raw)
    names = list(tasks or raw["tasks"])
    moe = read_moe(folder / "moe.json", names, {task: {"job": f"{task} alone", "seconds": 100.0} for task in names})
    assert moe is not None
    return moe


def named(number: int) -> dict[str, str]:
    return {f"data set {index} with a long name $x_": ("rmse", "accuracy")[index % 2] for index in range(number)}


def study_with_experts(folder: Path, number: int) -> Study:
    """A study whose last two tasks the experts are adapted to."""
    study = study_of(number)
    metric = {task: row.metric for task, row in study.baselines.items()}
    old, new = ({task: metric[task] for task in part} for part in (study.tasks[:-2], study.tasks[-2:]))
    alone = {task: row.job for task, row in study.baselines.items()}
    write_json(folder / "moe.json", moe_metrics(old, scratch=alone))
    write_json(folder / "adapt.json", adapt_metrics(new, old=old))
    moe = read_moe(folder / "moe.json", study.tasks, {task: vars(row) for task, row in study.baselines.items()})
    adapt = read_adapt(folder / "adapt.json", study.tasks)
    assert moe is not None
    assert adapt is not None
    return replace(study, chapters=[MoeChapter(moe), AdaptChapter(adapt)])


@pytest.mark.parametrize(
    ("tasks", "layers", "experts", "lams"),
    [(1, 1, 4, (0.01,)), (2, 1, 12, (0.0,)), (3, 4, 12, (0.0, 0.01)), (6, 12, 64, (0.0, 0.001, 0.01, 0.1))],
)
def test_every_figure_has_a_bounded_size_and_its_data(
    tmp_path: Path, tasks: int, layers: int, experts: int, lams: tuple[float, ...]
) -> None:
    moe = moe_of(tmp_path, moe_metrics(named(tasks), layers=layers, experts=experts, lams=lams))
    with rc_context(STYLE):
        drawings = list(MoeChapter(moe).drawings())
    assert len({drawing.stem for drawing in drawings}) == len(drawings)
    assert ("moe_information_depth" in {drawing.stem for drawing in drawings}) == (tasks > 1 and layers > 1)
    for drawing in drawings:
        drawing.figure.savefig(io.BytesIO(), format="png", dpi=30)
        assert drawing.figure.get_figwidth() == pytest.approx(10.5)
        assert 0.8 < drawing.figure.get_figheight() < 30
        assert drawing.rows
        assert len({tuple(row) for row in drawing.rows}) == 1, "rows of one table have one set of columns"


def test_the_maps_hold_the_shares_of_all_data_sets_on_one_scale(tmp_path: Path) -> None:
    raw = moe_metrics(layers=3)
    drawing = usage_figure(moe_of(tmp_path, raw))
    maps = [axis for axis in drawing.figure.axes if axis.get_title()]
    picks = {run["lam"]: run["picks"] for run in raw["runs"] if run["picks"]}
    wanted = [np.array(picks[lam][layer]) for layer in range(3) for lam in (0.0, 0.01)]
    assert len(maps) == len(wanted)
    assert len({axis.images[0].get_clim() for axis in maps}) == 1
    for axis, shares_ME in zip(maps, wanted, strict=True):
        numbers = [int(label.get_text()) for label in axis.get_xticklabels()]
        assert sorted(numbers) == list(range(12))
        assert np.allclose(np.asarray(axis.images[0].get_array()), shares_ME[:, numbers])
        bold = [label.get_fontweight() == "bold" for label in axis.get_xticklabels()]
        assert bold == [(shares_ME[:, number] >= 1 / 12).sum() >= 2 for number in numbers]
    for run in raw["runs"][:2]:
        for layer, name in enumerate(row["name"] for row in raw["layers"]):
            rows = [row for row in drawing.rows if (row["name"], row["layer"]) == (run["name"], name)]
            assert [row["share"] for row in rows] == pytest.approx(np.ravel(run["picks"][layer]))
            assert [row["probability"] for row in rows] == pytest.approx(np.ravel(run["probs"][layer]))


def test_experts_stand_with_the_data_set_that_uses_them_most() -> None:
    shares_RE = np.array([[0.1, 0.2, 0.6, 0.1], [0.5, 0.3, 0.1, 0.1]])
    assert expert_order(shares_RE) == [2, 3, 0, 1]
    assert shared_experts(shares_RE).tolist() == [False] * 4
    assert shared_experts(np.full((2, 4), 0.25)).all()


@pytest.mark.parametrize(
    ("lams", "chosen", "shown"),
    [
        ((0.0, 0.01), 0.01, [0.0, 0.01]),
        ((0.01, 0.0), 0.0, [0.0, 0.01]),
        ((0.1, 0.01), 0.01, [0.01]),
        ((0.0,), 0.0, [0.0]),
    ],
)
def test_the_chosen_lam_stands_beside_none(
    tmp_path: Path, lams: tuple[float, ...], chosen: float, shown: list[float]
) -> None:
    moe = moe_of(tmp_path, moe_metrics(lams=lams))
    assert moe.chosen.lam == chosen
    assert [run.lam for run in moe.compared] == shown


def test_the_information_of_every_layer_is_a_line_below_the_bound(tmp_path: Path) -> None:
    raw = moe_metrics()
    (axis,) = information_figure(moe_of(tmp_path, raw)).figure.axes
    drawn = [np.asarray(line.get_ydata(), float).tolist() for line in axis.lines]
    for run in raw["runs"][:2]:
        assert run["mi"] in drawn
        assert max(run["mi"]) < math.log(3)
    assert [math.log(3)] * 2 in drawn
    faint = raw | {"runs": [run | {"mi": [0.01] * 4} if run["mi"] else run for run in raw["runs"]]}
    drawing = information_figure(moe_of(tmp_path, faint))
    assert "log 3 = 1.10, is far above" in drawing.caption
    assert drawing.figure.axes[0].get_ylim()[1] < 0.02


def test_every_method_is_a_point_of_both_planes(tmp_path: Path) -> None:
    moe = moe_of(tmp_path, moe_metrics())
    for axis, key, unit in zip(quality_figure(moe).figure.axes, ("params", "flops"), (1e6, 2e6), strict=True):
        drawn = {tuple(place) for line in axis.lines for place in np.asarray(line.get_xydata()).tolist()}
        assert {(getattr(run, key) / unit, run.delta_mtl) for run in moe.runs} <= drawn
        assert {text.get_text() for text in axis.texts} >= {"λ 0", "λ 0.01", "dense (MTHL.D)", "from scratch"}


def test_the_table_marks_the_best_and_names_the_job_of_each_number(tmp_path: Path) -> None:
    raw = moe_metrics({"a": "rmse", "b": "accuracy", "c": "accuracy"})
    head, *lines = methods_table(moe_of(tmp_path, raw)).lines
    assert [cell.text for cell in head] == ["", "parameters", "multiply-adds", "a", "b", "c", "Δ_MTL"]
    assert [cell.small[-1] for cell in head[3:6]] == ["↓", "↑", "↑"]
    for column, (task, best) in enumerate([("a", min), ("b", max), ("c", max)], 3):
        top = best(run["test"][task] for run in raw["runs"])
        for line, run in zip(lines, raw["runs"], strict=True):
            assert line[column].text == value_text(run["test"][task])
            assert line[column].best == (run["test"][task] == top)
    jobs = {line[0].text: [cell.job for cell in line[3:6]] for line in lines}
    assert jobs["MoE λ=0.01"] == ["key moe-lam0.01"] * 3
    assert jobs["from scratch"] == ["a alone", "b alone", "c alone"]
    assert jobs["pre-trained, fine-tuned"] == ["key a tuned", "key b tuned", "c alone"], "fine-tuned from that of c"
    assert [line[-1].text for line in lines if line[-1].best] == ["+2.1"]
    assert [line[0].text for line in lines if line[0].small == "chosen"] == ["MoE λ=0.01"]


def test_the_table_of_information_is_that_of_the_runs(tmp_path: Path) -> None:
    raw = moe_metrics(layers=2)
    table = information_table(moe_of(tmp_path, raw))
    _, *lines, bound = table.lines
    for line, run in zip(lines, raw["runs"][:2], strict=True):
        assert [float(cell.text) for cell in line[1:]] == pytest.approx([*run["mi"], mean(run["mi"])], abs=6e-4)
        assert {cell.job for cell in line[1:]} == set(run["jobs"])
    assert {cell.text for cell in bound[1:]} == {f"{math.log(3):.3f}"}
    assert len(table.rows) == 4
    write_csv(tmp_path / "information.csv", table.rows)


def with_delta(moe: Moe, deltas: dict[str, float]) -> Moe:
    runs = [replace(run, delta_mtl=deltas.get(run.method, -9.0)) for run in moe.runs]
    return replace(moe, runs=runs, chosen=next(run for run in runs if run.name == moe.chosen.name))


def test_the_sentence_says_where_the_experts_stand(tmp_path: Path) -> None:
    raw = moe_metrics()
    moe = moe_of(tmp_path, raw)
    behind = lead(with_delta(moe, {"moe": -1.5, "dense": 0.5, "scratch": 0.0}))
    assert "λ = 0.01 chosen on validation, 2.18 M parameters: Δ_MTL −1.5 % on test" in behind
    assert "(they have 2.70 M); without the penalty −1.5 %; without experts +0.5 % with 0.90 M." in behind
    free, chosen = (mean(run["mi"]) for run in raw["runs"][:2])
    assert f"mean of 4 layers: {chosen:.2f} nats, {free:.2f} without the penalty, 1.10 at most." in behind
    assert behind.endswith("Better with no more parameters (0.90 M): dense (MTHL.D), Δ_MTL +0.5 %.")
    ahead = lead(with_delta(moe, {"moe": 1.5, "dense": 0.5, "scratch": 0.0}))
    assert "Δ_MTL +1.5 %" in ahead
    assert "Better" not in ahead
    assert "Better with more parameters (2.70 M): pre-trained" in lead(moe)
    one = lead(moe_of(tmp_path, moe_metrics({"a": "accuracy"}, lams=(0.01,), methods=())))
    assert "chosen on validation" not in one
    assert "nothing that experts could tell apart" in one


def test_a_job_is_listed_once_and_the_single_task_networks_elsewhere(tmp_path: Path) -> None:
    raw = moe_metrics()
    jobs = list(MoeChapter(moe_of(tmp_path, raw)).jobs())
    keys = [key for job in jobs for key in job.keys]
    assert len(set(keys)) == len(keys)
    assert set(keys) == {key for run in raw["runs"] for key in run["jobs"] if "alone" not in key}
    (tuned,) = [job for job in jobs if len(job.keys) == 2]
    assert (tuned.seconds, tuned.epochs) == (200.0, (7, 7))


def test_tasks_stand_in_the_order_of_the_study(tmp_path: Path) -> None:
    moe = moe_of(tmp_path, moe_metrics(), ["nyuv2", "not learned", "cifar100", "bccd"])
    assert list(moe.tasks) == ["nyuv2", "cifar100", "bccd"]
    (line,) = [line for line in methods_table(moe).lines if line[0].text == "from scratch"]
    assert [cell.job for cell in line[3:6]] == ["nyuv2 alone", "cifar100 alone", "bccd alone"]


@pytest.mark.parametrize(("number", "turned"), [(3, 0), (5, 0), (12, 3)])
def test_the_page_shows_both_chapters_and_every_link_leads_to_a_job(tmp_path: Path, number: int, turned: int) -> None:
    study = study_with_experts(tmp_path, number)
    text = render_page(study, [], "none")
    checker = Checker()
    checker.feed(text)
    assert not checker.open
    targets = [html.unescape(target) for target in re.findall(r'id="([^"]+)"', text)]
    assert len(set(targets)) == len(targets)
    assert {address[1:] for address in checker.addresses if address.startswith("#")} <= set(targets)
    sections = text[text.index('<section id="moe"') : text.index('<section id="changes"')]
    assert sections.count("<table") == (5 if number > 3 else 4), "one data set tells nothing apart"
    assert sections.count('class="data tall"') == turned
    names = {name for name, _ in data_tables(study, result_lines(study))}
    assert names >= {"moe", "adapt", "continual", "forgetting"}
    stems = [drawing.stem for chapter in study.chapters for drawing in chapter.drawings()]
    assert not names & set(stems), "each has a csv of its own"


def test_the_networks_are_rows_of_the_results(tmp_path: Path) -> None:
    study = study_of(3)
    metric = {task: row.metric for task, row in study.baselines.items()}
    moe = moe_of(tmp_path, moe_metrics(metric, network=True), study.tasks)
    study = replace(study, chapters=[MoeChapter(moe)])
    lines = result_lines(study)[-3:]
    assert [line.label for line in lines] == ["MoE λ=0", "MoE λ=0.01", "dense (MTHL.D)"]
    for line in lines:
        run = next(run for run in moe.runs if run.name == line.name)
        assert line.strategy == "moe"
        assert line.test == run.test
        assert (line.params, line.jobs) == (run.params, tuple(run.jobs))
    for drawing in draw_figures(study):
        drawing.figure.savefig(io.BytesIO(), format="png", dpi=30)


def test_without_results_there_is_no_chapter(tmp_path: Path) -> None:
    assert read_moe(tmp_path / "metrics.json", ["a"], {}) is None
    write_json(tmp_path / "metrics.json", {"runs": []})
    assert read_moe(tmp_path / "metrics.json", ["a"], {}) is None
    assert "MoE" not in render_page(study_of(3), [], "none")


@pytest.mark.filterwarnings(DECODING)
def test_from_files_to_figures(tmp_path: Path) -> None:
    config = artifacts(tmp_path)
    (tmp_path / "moe").mkdir()
    write_json(tmp_path / "moe" / "metrics.json", moe_metrics({"kind": "accuracy", "depth": "rmse"}, network=True))
    study = read_study(config, tmp_path)
    assert [network.strategy for network in study.networks] == ["branched", "moe", "moe", "moe"]
    (tmp_path / "adapt").mkdir()
    old, new = {"kind": "accuracy"}, {"depth": "rmse"}
    write_json(tmp_path / "moe" / "metrics.json", moe_metrics(old))
    write_json(tmp_path / "adapt" / "metrics.json", adapt_metrics(new, old=old))
    stems = [drawing.stem for drawing in draw_figures(read_study(config, tmp_path))]
    mine = ["moe_quality", "moe_usage", "adapt_trade_off", "adapt_usage", "adapt_forgetting"]
    assert [stem for stem in stems if stem.startswith(("moe", "adapt"))] == mine
    assert percent_text(0.7) in lead(moe_of(tmp_path, moe_metrics(TASKS)))
