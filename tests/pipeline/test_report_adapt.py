"""What the report says of adapting to new data sets is what its stage left, whichever modes were trained."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.colors import to_hex

from pipeline.artifacts import write_json
from pipeline.report.adapt import AdaptChapter
from pipeline.report.adapt_figures import trade_off_figure, usage_figure
from pipeline.report.adapt_tables import modes_table
from pipeline.report.adapt_words import lead
from pipeline.report.continual_tables import continual_table, forgetting_table
from pipeline.report.forgetting_figure import forgetting_figure
from pipeline.report.found_adapt import Adapt, Continual, read_adapt
from pipeline.report.mode_names import OWN, mode_family, mode_name
from pipeline.report.number_texts import count_text, percent_text, value_text
from pipeline.report.page import render_page
from pipeline.report.style import PALE, STYLE
from pipeline.report.tables import write_csv
from tests.pipeline.moe_cases import MODES, NEW, TASKS, adapt_metrics
from tests.pipeline.test_report import study_of

MIXED = {"a": "rmse", "b": "accuracy"}


def adapt_of(folder: Path, raw: dict[str, Any], tasks: Sequence[str] | None = None) -> Adapt:
    write_json(folder / "adapt.json", raw)
    adapt = read_adapt(folder / "adapt.json", list(tasks or raw["tasks"]))
    assert adapt is not None
    return adapt


def taught(folder: Path, raw: dict[str, Any]) -> tuple[Adapt, Continual]:
    adapt = adapt_of(folder, raw)
    assert adapt.continual is not None
    return adapt, adapt.continual


@pytest.mark.parametrize(
    ("tasks", "layers", "experts", "modes"),
    [
        (1, 1, 4, ("router",)),
        (2, 4, 12, tuple(MODES)),
        (3, 2, 12, ("full", "adapter", "top_k_2")),
        (6, 12, 64, tuple(MODES)),
    ],
)
def test_every_figure_has_a_bounded_size_and_its_data(
    tmp_path: Path, tasks: int, layers: int, experts: int, modes: Sequence[str]
) -> None:
    names = {f"task {index} with a long name $x_": ("rmse", "accuracy")[index % 2] for index in range(tasks)}
    adapt = adapt_of(tmp_path, adapt_metrics(names, layers=layers, experts=experts, modes=modes))
    with rc_context(STYLE):
        drawings = list(AdaptChapter(adapt).drawings())
    stems = [drawing.stem for drawing in drawings]
    assert len(set(stems)) == len(stems)
    assert ("adapt_trade_off" in stems) == (len(modes) > 1)
    assert ("adapt_usage" in stems) == ("router" in modes)
    for drawing in drawings:
        drawing.figure.savefig(io.BytesIO(), format="png", dpi=30)
        assert drawing.figure.get_figwidth() == pytest.approx(10.5)
        assert 0.8 < drawing.figure.get_figheight() < 30
        assert drawing.rows
        assert len({tuple(row) for row in drawing.rows}) == 1, "rows of one table have one set of columns"


@pytest.mark.parametrize("tasks", [NEW, MIXED])
def test_every_mode_is_a_point_of_all_planes_and_named_where_it_saves(tmp_path: Path, tasks: dict[str, str]) -> None:
    adapt = adapt_of(tmp_path, adapt_metrics(tasks))
    figure = trade_off_figure(adapt).figure
    keys = {"trained_params": 1e6, "model_params": 1e6, "flops": 2e6}
    for axis, (key, unit) in zip(figure.axes, keys.items(), strict=True):
        colours = {tuple(np.asarray(line.get_xydata())[0].tolist()): to_hex(line.get_color()) for line in axis.lines}
        named = {text.get_text() for text in axis.texts}
        most = max(getattr(mode, key) for mode in adapt.modes)
        for mode in adapt.modes:
            y = mode.mean if tasks is NEW else adapt.delta(mode)
            assert ((getattr(mode, key) / unit), y) in colours
            whole = key == "trained_params" and mode.mode.startswith("prune")
            saves = (getattr(mode, key) < 0.98 * most and not whole) or mode.mode == "full"
            assert (mode_name(mode.mode) in named) == saves
            if tasks is NEW:
                assert (colours[getattr(mode, key) / unit, y] == PALE) == (not saves)


def test_without_full_fine_tuning_every_mode_is_named(tmp_path: Path) -> None:
    adapt = adapt_of(tmp_path, adapt_metrics(modes=("router", "top_k_2")))
    drawing = trade_off_figure(adapt)
    assert {text.get_text() for axis in drawing.figure.axes for text in axis.texts} == {"router", "top 2"}
    assert "pale" not in drawing.caption


def test_the_maps_show_what_a_router_uses_and_what_was_removed(tmp_path: Path) -> None:
    raw = adapt_metrics(modes=("full", "router", "prune_1_2", "hybrid_a"), layers=2)
    adapt = adapt_of(tmp_path, raw)
    drawing = usage_figure(adapt)
    maps = [axis for axis in drawing.figure.axes if axis.get_title()]
    assert [axis.get_title().split("\n")[-1] for axis in maps] == ["router only", "prune 1/2", "hybrid A"] * 2
    runs = {run["name"]: run for run in raw["runs"]}
    modes = {mode["mode"]: mode for mode in raw["modes"]}
    wanted = [(layer, mode) for layer in range(2) for mode in ("router", "prune_1_2", "hybrid_a")]
    for axis, (layer, mode) in zip(maps, wanted, strict=True):
        numbers = [int(label.get_text()) for label in axis.get_xticklabels()]
        gone = 0
        for row, task in enumerate(NEW):
            shares = runs[modes[mode]["runs"][task]]["picks"][layer]
            full = np.array([*shares, *[0.0] * (12 - len(shares))])
            assert np.asarray(axis.images[0].get_array())[row].tolist() == pytest.approx(full[numbers].tolist())
            gone += 12 - runs[modes[mode]["runs"][task]]["experts"][layer]
        assert len(axis.collections[0].get_paths()) == gone
    for row in drawing.rows:
        assert not row["removed"] or row["share"] == 0


def test_an_expert_that_is_left_but_never_chosen_is_not_called_removed(tmp_path: Path) -> None:
    raw = adapt_metrics({"a": "accuracy"}, layers=1, experts=4, modes=("router", "prune_1_2"), continual=())
    picks = {"router": [[0.1, 0.4, 0.2, 0.3]], "prune_1_2": [[0.0, 1.0]]}
    for run in raw["runs"]:
        run |= {"picks": picks[run["mode"]], "experts": [4] if run["mode"] == "router" else [2]}
    rows = [row for row in usage_figure(adapt_of(tmp_path, raw)).rows if row["mode"] == "prune_1_2"]
    assert [row["removed"] for row in rows] == [True, False, True, False], "3 is left, for the router used it more"


def test_the_table_of_modes_marks_the_best_and_names_the_job_of_each_number(tmp_path: Path) -> None:
    raw = adapt_metrics(MIXED)
    adapt = adapt_of(tmp_path, raw)
    table = modes_table(adapt)
    head, *lines, single = table.lines
    assert [cell.text for cell in head] == ["", "trained", "model", "multiply-adds", "a", "b", "Δ_MTL"], "no mixed mean"
    runs = {run["name"]: run for run in raw["runs"]}
    for line, mode in zip(lines, raw["modes"], strict=True):
        assert [cell.text for cell in line[1:3]] == [count_text(mode[k]) for k in ("trained_params", "model_params")]
        assert line[3].text == count_text(mode["flops"] / 2)
        shares = [mode[k] for k in ("trained_share", "params_share", "flops_share")]
        assert [cell.small for cell in line[1:4]] == [f"{100 * share:.1f} %" for share in shares]
        for column, (task, best) in enumerate([("a", min), ("b", max)], 4):
            assert line[column].text == value_text(mode["test"][task])
            assert line[column].job == runs[mode["runs"][task]]["job"]
            assert line[column].best == (mode["test"][task] == best(m["test"][task] for m in raw["modes"]))
        gains = [100 * (0.3 - mode["test"]["a"]) / 0.3, 100 * (mode["test"]["b"] - 0.88) / 0.88]
        assert line[-1].text == percent_text(mean(gains))
    assert [cell.text for cell in single] == ["single", "0.90 M", "0.90 M", "–", "0.300", "0.880", "0"]
    write_csv(tmp_path / "adapt.csv", table.rows)


def test_one_metric_has_a_mean_and_no_full_fine_tuning_no_shares(tmp_path: Path) -> None:
    raw = adapt_metrics(modes=("router", "top_k_2"))
    head, *lines = modes_table(adapt_of(tmp_path, raw)).lines
    place = [cell.text for cell in head].index("mean")
    assert [line[place].text for line in lines[:2]] == [value_text(mode["mean"]) for mode in raw["modes"]]
    assert [line[place].best for line in lines[:2]] == [False, True]
    assert not any(cell.small for line in lines[:2] for cell in line[1:])


def test_a_reference_of_nothing_allows_no_relative_change(tmp_path: Path) -> None:
    raw = adapt_metrics(MIXED)
    raw["tasks"]["b"]["scratch_test"] = 0.0
    adapt = adapt_of(tmp_path, raw)
    assert adapt.delta(adapt.modes[0]) == pytest.approx(100 * (0.3 - adapt.modes[0].test["a"]) / 0.3)
    raw["tasks"]["a"]["scratch_test"] = 0.0
    for row in [row for method in raw["continual"]["methods"] for row in method["matrix"]]:
        row[:3] = [0.0, 0.0, 0.0]
    adapt = adapt_of(tmp_path, raw)
    assert {line[-1].text for line in modes_table(adapt).lines[1:-1]} == {"–"}
    for drawing in AdaptChapter(adapt).drawings():
        drawing.figure.savefig(io.BytesIO(), format="png", dpi=30)
    assert lead(adapt).startswith("moe-lam0.01 adapted to 2 new tasks: Against it")


def test_the_table_of_continual_learning_is_the_last_row_of_the_matrices(tmp_path: Path) -> None:
    raw = adapt_metrics()
    table = continual_table(*taught(tmp_path, raw))
    head, own, lwf, full = table.lines
    assert [cell.text for cell in head] == ["", "new", "trained", *TASKS, *NEW]
    for line, method in zip((own, lwf), raw["continual"]["methods"], strict=True):
        assert line[1].text == count_text(mean(method["new_params"]))
        assert line[2].text == count_text(mean(method["trained_params"]))
        assert [cell.text for cell in line[3:]] == [value_text(value) for value in method["matrix"][-1]]
    assert [cell.job for cell in own[3:]] == [raw["base"]["job"]] * 3 + raw["continual"]["methods"][0]["jobs"]
    assert {cell.job for cell in lwf[3:]} == {raw["continual"]["methods"][1]["jobs"][-1]}, "all of it learned last"
    assert [cell.best for cell in own[3:]] == [True] * 5
    assert [cell.text for cell in full[3:]] == ["–"] * 3 + [value_text(v) for v in raw["modes"][0]["test"].values()]
    assert full[-1].job == "key eurosat full 0.001"
    write_csv(tmp_path / "continual.csv", table.rows)


def test_the_forgetting_matrix_says_what_changed_since_a_task_was_learned(tmp_path: Path) -> None:
    raw = adapt_metrics()
    own, lwf = raw["continual"]["methods"]
    own["matrix"][2][1] = float(np.nextafter(own["matrix"][1][1], 1.0))
    adapt, continual = taught(tmp_path, raw)
    lines = forgetting_table(adapt, continual).lines[1:]
    steps = [line[0].small for line in lines]
    assert steps == ["after moe-lam0.01", "after gtsrb", "after eurosat"] * 2
    assert [cell.small for cell in lines[0][1:]] == [""] * 5, "just learned"
    assert [cell.small for cell in lines[1][1:]] == ["=", "=", "=", "", ""]
    assert [cell.small for cell in lines[2][1:]] == ["=", "0.0", "=", "=", ""], "a last bit is a change"
    assert [cell.small for cell in lines[5][1:]] == ["−14.0", "−14.0", "−14.0", "−7.0", ""]
    jobs = [line[1].job for line in lines[3:]]
    assert jobs == ["key moe-lam0.01", *lwf["jobs"]]
    assert [line[-1].text for line in lines[:2]] == ["–", "–"], "not yet learned"


def test_the_map_of_forgetting_is_the_matrix(tmp_path: Path) -> None:
    adapt, continual = taught(tmp_path, adapt_metrics(MIXED))
    drawing = forgetting_figure(adapt, continual)
    own, lwf = [axis for axis in drawing.figure.axes if axis.get_title()]
    nan = np.nan
    wanted = [[nan] * 5, [-7.0] * 3 + [nan] * 2, [-14.0] * 3 + [-7.0, nan]]
    assert np.allclose(np.ma.filled(np.ma.masked_array(lwf.images[0].get_array()), nan), wanted, equal_nan=True)
    assert {text.get_text() for text in own.texts if text.get_text() == "="}
    assert lwf.images[0].get_clim() == own.images[0].get_clim() == pytest.approx((-14.0, 14.0))
    assert len(drawing.rows) == 2 * (3 + 4 + 5)


def test_the_sentence_names_the_best_mode_on_validation_for_each_saving(tmp_path: Path) -> None:
    raw = adapt_metrics()
    adapt = adapt_of(tmp_path, raw)
    full = adapt.modes[0]
    modes = []
    for mode in adapt.modes:
        val = {"router_1": 0.8, "prune_2_3": 0.9, "top_k_2": 0.7}.get(mode.mode, 0.1)
        modes.append(replace(mode, val=dict.fromkeys(NEW, val), test={t: 0.5 * full.test[t] for t in NEW}))
    text = lead(replace(adapt, modes=[full, *modes[1:]]))
    assert f"Δ_MTL {percent_text(adapt.delta(full) or 0)} % on test with full fine-tuning" in text
    shares = {mode.mode: mode for mode in adapt.modes}
    for name, share, words in [
        ("router_1", "trained_share", "of the trained parameters −50.0 % (router + 1)"),
        ("prune_2_3", "params_share", "of the model's parameters −50.0 % (prune 2/3)"),
        ("top_k_2", "flops_share", "of the multiply-adds −50.0 % (top 2)"),
    ]:
        assert f"with {100 * getattr(shares[name], share):.1f} % {words}" in text
    assert (
        "own router + 1 expert leaves every earlier task exactly as it was; LwF changes the earlier tasks by −12"
        in text
    )


def test_the_sentence_claims_no_more_than_there_is(tmp_path: Path) -> None:
    raw = adapt_metrics(modes=("router", "top_k_2"))
    matrix = raw["continual"]["methods"][0]["matrix"]
    matrix[-1][0] = float(np.nextafter(matrix[-1][0], 1.0))
    text = lead(adapt_of(tmp_path, raw))
    assert "exactly as it was" not in text
    assert "full fine-tuning was not trained" in text
    assert "(router) to" in text
    assert "Learned one after another" not in lead(adapt_of(tmp_path, adapt_metrics(continual=())))
    assert "No mode saves much" in lead(adapt_of(tmp_path, adapt_metrics(modes=("full",))))


def test_every_job_is_listed_once_and_unlisted_ones_are_no_links(tmp_path: Path) -> None:
    raw = adapt_metrics()
    raw["continual"]["methods"][0]["jobs"][0] = raw["runs"][0]["job"]
    jobs = [job.keys for job in AdaptChapter(adapt_of(tmp_path, raw)).jobs()]
    assert len(set(jobs)) == len(jobs)
    assert {key for (key,) in jobs} == {run["job"] for run in raw["runs"]}
    raw["runs"] = [run for run in raw["runs"] if run["mode"] in MODES]
    table = forgetting_table(*taught(tmp_path, raw))
    assert {line[1].job for line in table.lines[4:]} == {"key moe-lam0.01", ""}


def test_modes_of_the_study_go_by_their_own_names() -> None:
    assert mode_name("tiny_router") == "tiny router"
    assert mode_family("tiny_router") == OWN
    assert {mode_family(mode) for mode in MODES} == {*map(mode_family, ("full", "adapter", "router", "prune_1_2"))} | {
        mode_family("top_k_1"),
        mode_family("hybrid_a"),
    }
    assert len({mode_name(mode) for mode in MODES}) == len(MODES)


def test_tasks_stand_in_the_order_of_the_study(tmp_path: Path) -> None:
    adapt = adapt_of(tmp_path, adapt_metrics(), ["cifar100", "eurosat", "gtsrb"])
    assert list(adapt.tasks) == ["eurosat", "gtsrb"]
    assert not AdaptChapter(adapt).networks()


def test_without_results_there_is_no_chapter(tmp_path: Path) -> None:
    assert read_adapt(tmp_path / "metrics.json", ["a"]) is None
    write_json(tmp_path / "metrics.json", {"runs": []})
    assert read_adapt(tmp_path / "metrics.json", ["a"]) is None
    assert "Adapting" not in render_page(study_of(3), [], "none")
