"""The report holds for one task and for forty, for one seed and for several, and its page needs nothing but itself."""

import io
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats

from models.branch_tree import BranchTree
from models.bundle import save
from models.sharing import SHARING
from models.spec import BackboneSpec, Column, ModelSpec
from models.tree_search import count_trees, enumerate_trees
from pipeline.artifacts import AFFINITY, TREES, TRIALS, DatasetManifest, write_json, write_manifests, write_table
from pipeline.config import Config
from pipeline.jobs import task_specs
from pipeline.report.budget_figures import correlation_words, cost_figure, front_figure, parameters_figure
from pipeline.report.change_figures import changes_figure
from pipeline.report.contact_sheet import contact_sheet, describe
from pipeline.report.figures import draw_figures
from pipeline.report.found_trees import ChosenTree, Groups, Search, TrainedTree, TrainedTrees, gap
from pipeline.report.further import further_tables
from pipeline.report.headline import lead, notes, recommendations, tree_words
from pipeline.report.network import SINGLE, TRIVIAL, Network
from pipeline.report.number_texts import count_text, large_text, number_text, p_text, percent_text, value_text
from pipeline.report.page import render_page
from pipeline.report.picture import picture_of
from pipeline.report.point_labels import Point, label_points
from pipeline.report.sample_sheets import BAD, GOOD, Strip, small_print
from pipeline.report.samples import draw_contact_sheets, draw_samples, median_network, spread
from pipeline.report.study import Baseline, Study, distinct, read_study
from pipeline.report.style import Drawing
from pipeline.report.tables import (
    SUMMARY,
    best_values,
    data_tables,
    headline_metrics,
    result_lines,
    summary_rows,
    tree_rows,
    wide_rows,
    write_csv,
)
from pipeline.report.tree_figure import leaf_order
from tests.pipeline.cases import DECODING

SIZE, LOCATIONS = (32, 32), 3
LABELS = {
    "kind": Column(layout="class", classes=("cat", "dog")),
    "depth": Column(layout="field", scale=0.01, unit="m"),
}
EVERY = {
    **LABELS,
    "flags": Column(layout="flags", classes=("round", "red")),
    "mask": Column(layout="mask", classes=("none", "cat")),
    "parts": Column(layout="instances"),
    "points": Column(layout="points", classes=("nose",)),
    "boxes": Column(layout="boxes", classes=("cat", "dog")),
}


def config_of(tasks: Sequence[str], seeds: Sequence[int], columns: Sequence[str] = ("kind", "depth")) -> Config:
    kinds = {"kind": "classification", "depth": "depth"}
    names = {task: columns[index % len(columns)] for index, task in enumerate(tasks)}
    return Config.model_validate(
        {
            "experiment": "pets",
            "datasets": {"pets": {"reader": "scenes", "size": SIZE}},
            "tasks": {task: {"kind": kinds[name], "dataset": "pets", "column": name} for task, name in names.items()},
            "backbone": {"name": "test_resnet", "locations": LOCATIONS},
            "seed": 0,
            "prepare": {},
            "train": {},
            "affinity": {},
            "trees": {"budgets": ["1.5x"]},
            "branched": {"seeds": list(seeds)},
            "taps": {},
            "moe": {},
            "adapt": {},
            "report": {"samples": 3},
        }
    )


def study_of(number: int, seeds: int = 1, names: Sequence[str] = ()) -> Study:
    """A study with invented results: networks shared, 1.5x (again shared), 2x and split."""
    rng, tasks = np.random.default_rng(number), list(names) or [f"<{index}> $x_" for index in range(number)]
    baselines = {
        task: Baseline(
            metric="accuracy" if index % 2 else "rmse",
            higher_is_better=bool(index % 2),
            val=0.5,
            test=0.5 + 0.1 * rng.random(),
            trivial_val=0.1,
            trivial_test=0.2,
            params=1000,
            flops=4000,
            epoch=2,
            seconds=1.5,
            job=f"job {task}",
        )
        for index, task in enumerate(tasks)
    }
    middle = [[0] * number] + [[min(index, 1) for index in range(number)]] * (LOCATIONS - 1)
    trees = {
        "shared": BranchTree.shared(number, LOCATIONS),
        "budget-1.5x": BranchTree.shared(number, LOCATIONS),
        "budget-2x": BranchTree(middle),
        "split": BranchTree.split(number, LOCATIONS),
    }
    chosen = {name: chosen_tree(name, tree, place) for place, (name, tree) in enumerate(trees.items())}
    networks, trials = [], []
    for place, name in enumerate(trees):
        values = {task: tuple(float(v) for v in 0.4 + 0.3 * rng.random(seeds)) for task in tasks}
        same = name == "budget-1.5x"
        networks.append(
            Network(
                name=name,
                label=chosen[name].label,
                strategy="branched",
                request=chosen[name].request,
                params=1000 * (1 + place - same),
                flops=8000,
                seconds=2.0,
                seeds=tuple(range(seeds)),
                keys=networks[0].keys if same else tuple(f"{name} {seed}" for seed in range(seeds)),
                epochs=(2,) * seeds,
                val=networks[0].val if same else values,
                test=networks[0].test if same else values,
            )
        )
    for name, count in [(SINGLE, 1), *((network.name, seeds) for network in networks)]:
        for seed in range(count):
            trials += [
                {"name": name, "split": "val", "task": task, "metric": baselines[task].metric, "seed": seed}
                | {"epoch": epoch, "value": 1e6 if epoch == 1 else float(rng.random())}
                for task in tasks
                for epoch in (1, 2)
            ]
    affinity = [
        {"location": d + 1, "task_a": a, "task_b": b, "value": 0.9 - 0.2 * d, "ci_low": 0.1, "ci_high": 0.95}
        | {"null_high": 0.6}
        for d in range(LOCATIONS)
        for a in tasks
        for b in tasks
    ]
    front = [
        {
            "groups": str([list(row) for row in chosen[network.name].groups]),
            "params": network.params,
            "flops": 8000,
            "cost": 1.0,
        }
        | {"budget": network.params, "lower_bound": 1.0, "method": "exhaustive", "optimal": True}
        for network in networks
    ]
    search = Search(unit="params", method="beam", optimal=False, trees_in_all=10**40, chosen=chosen)
    return Study(
        config=config_of(tasks, range(seeds)),
        manifests={"pets": manifest_of(LABELS)},
        baselines=baselines,
        trees=networks,
        affinity=affinity,
        search=search,
        front=front,
        trained=trained_trees([tree.groups for tree in trees.values()], rng, seeds),
        trials=trials,
    )


def chosen_tree(name: str, tree: BranchTree, place: int) -> ChosenTree:
    """A tree of invented cost; the one for 2x is not proved: at most a tenth of its cost might be saved."""
    cost = 3.0 - place + (name == "budget-1.5x")
    return ChosenTree(
        name=name,
        request=name.removeprefix("budget-") if "budget" in name else "",
        groups=tree.groups,
        cost=cost,
        lower_bound=0.9 * cost if name == "budget-2x" else cost,
        optimal=name != "budget-2x",
        method="beam" if name == "budget-2x" else "exact",
        budget=1000 * (1 + place),
        params=1000 * (1 + place),
        flops=8000,
    )


def trained_trees(groups: Sequence[Groups], rng: np.random.Generator, seeds: int = 1) -> TrainedTrees:
    """Each distinct tree with invented cost and results, and scipy's rank correlation of the two."""
    trees = [
        TrainedTree(
            name=f"tree {index}",
            groups=row,
            cost=float(rng.random()),
            params=int(rng.integers(1000, 9000)),
            flops=8000,
            delta_mtl=tuple(float(value) for value in rng.normal(size=seeds)),
            delta_mtl_val=tuple(float(value) for value in rng.normal(size=seeds)),
            jobs=tuple(f"{index} {seed}" for seed in range(seeds)),
        )
        for index, row in enumerate(dict.fromkeys(groups))
    ]
    return correlated(trees)


def correlated(trees: Sequence[TrainedTree]) -> TrainedTrees:
    costs, few = [tree.cost for tree in trees], len(trees) < 4
    test, p_value = spearman(costs, [mean(tree.delta_mtl) for tree in trees])
    val, _ = spearman(costs, [mean(tree.delta_mtl_val) for tree in trees])
    return TrainedTrees(
        exhaustive=False,
        trees_in_all=10**40,
        spearman=None if few else test,
        p_value=None if few else p_value,
        spearman_val=None if few else val,
        same_size=None if few else -0.4,
        same_size_p=None if few else 0.25,
        trees=trees,
    )


def spearman(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """scipy's rank correlation and its p; nan for too few points."""
    if len(one) < 3:
        return math.nan, math.nan
    found: Any = stats.spearmanr(one, other)
    return float(found.statistic), float(found.pvalue)


def manifest_of(columns: dict[str, Column]) -> DatasetManifest:
    return DatasetManifest(
        name="pets",
        counts={"train": 8, "val": 8, "test": 8},
        size=SIZE,
        columns=columns,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        fingerprint="abc",
        licence="none",
        skipped=("row 3: 'a.jpg' is no image",),
    )


@pytest.mark.parametrize(("number", "seeds"), [(1, 1), (2, 3), (5, 1), (9, 1), (13, 2)])
def test_every_figure_has_a_bounded_size_and_its_data(number: int, seeds: int) -> None:
    study = study_of(number, seeds)
    stems = []
    for drawing in draw_figures(study):
        drawing.figure.savefig(io.BytesIO(), format="png", dpi=30)
        width, height = drawing.figure.get_size_inches()
        assert 3 < width <= 12
        assert 1 < height <= 30
        assert drawing.rows
        assert len({tuple(row) for row in drawing.rows}) == 1, "rows of one table have one set of columns"
        stems.append(drawing.stem)
    assert len(set(stems)) == len(stems)
    assert ("affinity" in stems) == (number > 1)


@pytest.mark.parametrize(("number", "seeds"), [(1, 1), (5, 3)])
def test_delta_is_the_mean_of_signed_relative_changes(number: int, seeds: int) -> None:
    study = study_of(number, seeds)
    sign = np.array([1 if row.higher_is_better else -1 for row in study.baselines.values()])
    base = np.array([row.test for row in study.baselines.values()])
    for line, network in zip(result_lines(study)[2:], study.networks, strict=True):
        values = np.array([network.test[task] for task in study.tasks])
        deltas = (100 * sign[:, None] * (values - base[:, None]) / base[:, None]).mean(0)
        assert line.delta == pytest.approx(deltas.mean())
        if seeds == 1:
            assert line.spread is None
        else:
            assert line.spread == pytest.approx(deltas.std(ddof=1))
    trivial, single = result_lines(study)[:2]
    assert (trivial.name, single.name, single.delta) == (TRIVIAL, SINGLE, 0)
    assert trivial.delta == pytest.approx((100 * sign * (0.2 - base) / base).mean())


def test_best_values_follow_each_metrics_direction_and_leave_out_the_yardsticks() -> None:
    study = study_of(4)
    best = best_values(study, result_lines(study))
    for task, row in study.baselines.items():
        values = [network.test[task][0] for network in study.networks]
        assert best[task] == (max(values) if row.higher_is_better else min(values))


def test_the_summary_is_tidy_and_the_tables_agree(tmp_path: Path) -> None:
    study = study_of(3, 2)
    lines = result_lines(study)
    table = pa.Table.from_pylist(list(summary_rows(study, lines)), schema=SUMMARY)
    assert table.num_rows == len(lines) * 3
    assert set(table["name"].to_pylist()) == {TRIVIAL, SINGLE, "shared", "budget-1.5x", "budget-2x", "split"}
    means = {line.name: line.delta for line in lines}
    for row in table.to_pylist():
        assert row["delta_mtl"] == pytest.approx(means[row["name"]])
    write_csv(tmp_path / "results.csv", wide_rows(study, lines))
    assert len((tmp_path / "results.csv").read_text().splitlines()) == len(lines) + 1
    metrics = headline_metrics(study)
    assert metrics["delta_mtl_val"][metrics["best"]] == max(metrics["delta_mtl_val"].values())


def test_a_tree_that_was_trained_once_is_shown_once() -> None:
    study = study_of(3)
    assert [label for _, label in distinct(study.networks)] == ["shared = 1.5×", "2×", "split"]
    caveats = {label: caveat for label, _, caveat in recommendations(study)}
    assert "fully shared" in caveats["1.5×"]


def dots(figure: Figure) -> set[tuple[float, float]]:
    """Where the grey dots of the trained trees stand."""
    (collection,) = [
        part for part in figure.axes[0].collections if len(part.get_paths()) == 1 and part.get_zorder() == 2
    ]
    return {(x, y) for x, y in np.asarray(collection.get_offsets()).tolist()}


@pytest.mark.parametrize(("draw", "key", "scale"), [(parameters_figure, "params", 1e6), (cost_figure, "cost", 1.0)])
@pytest.mark.parametrize(("number", "seeds"), [(2, 1), (3, 1), (3, 3)])
def test_every_trained_tree_has_a_dot(draw: Callable, key: str, scale: float, number: int, seeds: int) -> None:
    study = study_of(number, seeds)
    every = [tree.groups for tree in enumerate_trees(number, LOCATIONS)]
    trained = trained_trees(every, np.random.default_rng(1), seeds)
    drawing = draw(replace(study, trained=trained))
    assert len(trained.trees) == count_trees(number, LOCATIONS)
    assert dots(drawing.figure) == {(getattr(tree, key) / scale, mean(tree.delta_mtl)) for tree in trained.trees}
    assert {row["name"] for row in drawing.rows} == {tree.name for tree in trained.trees}
    named = {row["name"] for row in drawing.rows if row["chosen"]}
    chosen = {tree.groups for tree in study.search.chosen.values()}
    assert named == {tree.name for tree in trained.trees if tree.groups in chosen}
    labels = {text.get_text() for text in drawing.figure.axes[0].texts}
    assert labels == {label for _, label in distinct(study.networks)}


def test_the_line_joins_the_chosen_trees_by_rising_budget() -> None:
    study = study_of(3)
    figure = parameters_figure(study).figure
    points = {tree.groups: (tree.params / 1e6, mean(tree.delta_mtl)) for tree in study.trained.trees}
    wanted = [list(points[study.search.chosen[name].groups]) for name in ("budget-1.5x", "budget-2x")]
    assert wanted in [np.asarray(line.get_xydata()).tolist() for line in figure.axes[0].lines]


@pytest.mark.parametrize("number", range(8))
def test_the_rank_correlation_shown_is_that_of_the_table(number: int) -> None:
    every = [tree.groups for tree in enumerate_trees(3, LOCATIONS)]
    study = replace(study_of(3), trained=trained_trees(every, np.random.default_rng(number), 2))
    drawing = cost_figure(study)
    costs, deltas, vals = ([row[key] for row in drawing.rows] for key in ("cost", "delta_mtl", "delta_mtl_val"))
    (test, p_value), (val, _) = spearman(costs, deltas), spearman(costs, vals)
    assert f"correlation {number_text(test)} ({p_text(p_value)}" in drawing.caption
    assert f"on validation {number_text(val)})" in drawing.caption
    assert ("shows no relation" in drawing.caption) == (p_value > 0.05)


@pytest.mark.parametrize(
    ("sign", "words"), [(-1, "trees of lower cost did better"), (1, "trees of lower cost did worse, the opposite")]
)
def test_a_clear_correlation_is_said_whichever_way_it_points(sign: int, words: str) -> None:
    trees = trained_trees([tree.groups for tree in enumerate_trees(3, 1)], np.random.default_rng(0)).trees
    ranked = [replace(tree, delta_mtl=(sign * tree.cost,)) for tree in trees]
    assert words in correlation_words(correlated(ranked))
    assert "too few" in correlation_words(correlated(ranked[:3]))


@pytest.mark.parametrize(("bounds", "shown"), [((2.0, 1.0, 0.0), (2.0, 1.0, 0.0)), ((1.5, 1.8, 0.0), (1.8, 1.8, 0.0))])
def test_the_bound_runs_below_the_front_and_holds_for_smaller_budgets(
    bounds: Sequence[float], shown: Sequence[float]
) -> None:
    study, costs = study_of(3), (3.0, 2.0, 0.0)
    front = [
        {"groups": f"[[{index}]]", "params": 1, "flops": 2, "budget": 10 + index, "cost": cost, "lower_bound": bound}
        | {"method": "beam", "optimal": cost == bound}
        for index, (cost, bound) in enumerate(zip(costs, bounds, strict=True))
    ]
    drawing = front_figure(replace(study, front=front[::-1]))
    (line,) = [line for line in drawing.figure.axes[0].lines if str(line.get_label()).startswith("proved")]
    assert tuple(np.asarray(line.get_ydata())) == shown
    assert f"{max(map(gap, costs, bounds)):.1f} %" in drawing.caption
    proved = front_figure(replace(study, front=[row | {"lower_bound": row["cost"], "optimal": True} for row in front]))
    assert "proved optimal: no tree" in proved.caption
    assert not [line for line in proved.figure.axes[0].lines if str(line.get_label()).startswith("proved")]


def test_chosen_trees_are_listed_with_what_is_proved() -> None:
    study = study_of(3)
    rows = {row["name"]: row for row in tree_rows(study)}
    for name, tree in study.search.chosen.items():
        assert rows[name]["branches"] == " ".join(map(str, BranchTree(tree.groups).branches))
    assert rows["budget-2x"]["gap"] == pytest.approx(10)
    assert rows["budget-2x"]["optimal"] is False
    assert rows["budget-1.5x"]["optimal"] is True
    assert rows["shared"]["lower_bound"] is None, "nothing was searched for"
    assert "beam search and not proved best: the least possible cost is at most 10.0 %" in lead(study)
    proved = {name: replace(tree, optimal=True) for name, tree in study.search.chosen.items()}
    assert "this is proved" in lead(replace(study, search=replace(study.search, chosen=proved)))
    page = render_page(study, [], "none")
    for row in rows.values():
        assert f'<th scope="row">{row["name"]}</th>' in page


@pytest.mark.parametrize(
    ("request_", "label"),
    [("", "x"), ("1.7x", "1.7×"), ("2000000", "2 M"), ("params 1.7x, flops 2x", "params 1.7×, flops 2×")],
)
def test_budgets_as_people_read_them(request_: str, label: str) -> None:
    tree = chosen_tree("x", BranchTree.shared(2, 1), 0)
    assert replace(tree, request=request_).label == label


def test_a_change_within_the_noise_of_seeds_is_hatched() -> None:
    study = study_of(40, 3)
    figure = changes_figure(study).figure
    (hatched,) = figure.axes[0].collections
    faint = 0
    for network, _ in distinct(study.networks):
        for values in [[study.baselines[t].change(v) for v in network.test[t]] for t in study.tasks]:
            faint += abs(mean(values)) <= stdev(values)
        faint += abs(mean(study.deltas(network))) <= stdev(study.deltas(network))
    assert 0 < faint == len(hatched.get_paths())


def test_forty_tasks_take_seconds() -> None:
    study = study_of(40)
    started = time.process_time()
    drawings = list(draw_figures(study))
    page = render_page(study, [picture_of(drawing) for drawing in drawings], "none")
    assert time.process_time() - started < 60
    assert len(page) < 15e6
    assert max(drawing.figure.get_figheight() for drawing in drawings) < 30


@pytest.mark.parametrize("number", [8, 9])
def test_the_results_table_turns_when_it_is_too_wide(number: int) -> None:
    study = study_of(number, 2)
    page = render_page(study, [], "none")
    table = page[page.index('id="results"') : page.index('id="budget"')]
    rows = table[table.index("<tbody") :].count("<tr")
    lines = len(result_lines(study))
    assert rows == (lines if number == 8 else number + 4)
    assert table.count("accuracy ↑") == number // 2
    for network in study.networks:
        for task in study.tasks:
            assert value_text(mean(network.test[task])) in table
        assert f"± {stdev(study.deltas(network)):.1f}" in table
        assert network.keys[0][:8] in table


def test_names_beside_points_cover_nothing() -> None:
    figure = Figure(figsize=(10.5, 4))
    axes = figure.add_subplot()
    places = [(1.0, 1.0), (1.02, 1.02), (1.04, 1.0), (1.0, 1.3), (5.0, 3.0)]
    points = [Point(x=x, y=y, text=f"params {x}×", spread=0.1) for x, y in places]
    axes.plot(*zip(*places, strict=True), "o")
    axes.margins(0.1, 0.2)
    label_points(axes, points)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == len(points)
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:index])
        assert not any(box.contains(*axes.transData.transform(place)) for place in places)


def test_many_answers_in_words_share_a_sheet() -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    strips = [
        Strip(
            task=f"t{index}",
            metric="accuracy",
            rows={"target": [("yes", None), ("unlabelled", None)], "tree": [(f"no {index}", 0.0), ("yes", None)]},
        )
        for index in range(7)
    ]
    figure = small_print(images, strips, slice(0, 2), [strip.task for strip in strips])
    colours = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    assert {f"t{index}" for index in range(7)} <= set(colours)
    assert {colours[f"no {index}"] for index in range(7)} == {BAD}
    assert colours["yes"] not in (GOOD, BAD), "without a label there is no right or wrong"


def test_forty_flags_stand_on_one_contact_sheet() -> None:
    columns = {f"c{index}": Column(layout="class", classes=("no", "yes")) for index in range(40)}
    labels = {name: torch.ones(2, dtype=torch.int64) for name in columns}
    figure = contact_sheet(torch.zeros(2, 3, *SIZE, dtype=torch.uint8), labels, columns)
    words = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert all(f"c{index}: yes" in words for index in range(40))
    assert "not drawn" not in words
    assert figure.get_figwidth() <= 10.5


def test_leaves_of_a_branch_stand_together() -> None:
    for tree in enumerate_trees(4, 3):
        place = {task: row for row, task in enumerate(leaf_order(tree))}
        for d in range(tree.num_locations):
            for members in tree.members(d):
                rows = sorted(place[t] for t in members)
                assert rows == list(range(rows[0], rows[0] + len(rows)))


def test_a_tree_in_words() -> None:
    groups = ((0, 0, 0), (0, 1, 0), (0, 1, 2))
    assert tree_words(groups, ["a", "b", "c"]) == (
        "location 1: all tasks together; location 2: a + c | b; location 3: every task alone"
    )
    assert tree_words(((0,), (0,)), ["a"]) == "locations 1–2: a"


def test_notes_name_generated_data_seeds_and_weak_yardsticks() -> None:
    study = study_of(2)
    weak = replace(study.baselines[study.tasks[1]], test=0.201)
    text = " ".join(notes(replace(study, baselines={**study.baselines, study.tasks[1]: weak})))
    assert "pets: generated data" in text
    assert "One seed" in text
    assert "<1> $x_ (accuracy 0.201, trivial 0.200)" in text
    assert "2 seeds" in " ".join(notes(study_of(2, 2)))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (value_text(0.12345), "0.123"),
        (value_text(2456.9), "2.46e+03"),
        (value_text(float("nan")), "–"),
        (count_text(464_326), "0.46 M"),
        (count_text(2.5e9), "2.50 G"),
        (percent_text(-6.14), "−6.1"),
        (percent_text(0.21), "+0.2"),
        (percent_text(-0.01), "0.0"),
        (large_text(3455), "3,455"),
        (large_text(4_183_174_520), "4.2 · 10⁹"),
        (number_text(-0.394), "−0.39"),
        (p_text(0.0004), "p < 0.001"),
        (p_text(0.282), "p = 0.282"),
    ],
)
def test_numbers_as_people_read_them(text: str, wanted: str) -> None:
    assert text == wanted


def test_samples_are_spread_evenly() -> None:
    assert spread(10, 3) == [0, 3, 6]
    assert spread(2, 6) == [0, 1]
    assert median_network(study_of(2).networks).name == "budget-1.5x"


class Checker(HTMLParser):
    """Collects addresses, and refuses scripts from elsewhere and tags closed in another order than opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("iframe", "object", "link")
        assert tag != "script" or "src" not in dict(attrs)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(("number", "seeds"), [(1, 1), (3, 2), (40, 1)])
def test_the_page_needs_nothing_but_itself(number: int, seeds: int) -> None:
    study = study_of(number, seeds)
    figure = contact_sheet(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), {}, {})
    drawing = Drawing(stem="x", section="budget", caption="Δ_MTL <of> all 3 seeds at 0.5 M, 4 %, 2 s", figure=figure)
    text = render_page(study, [picture_of(drawing)], "abc-dirty")
    checker = Checker()
    checker.feed(text)
    assert not checker.open
    for address in checker.addresses:
        assert re.match(r"data:image/|#|figures/|tables/|params\.yaml$", address), address
    assert "default-src 'none'" in text
    names = ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml")
    assert set(re.findall(r"https?://[^\"'\s]*", text)) <= set(names), "names of languages, not addresses"
    assert not re.search(r"@import|url\((?!#)", text)
    assert "Δ<sub>MTL</sub> &lt;of&gt; all 3 seeds at 0.5\xa0M, 4\xa0%, 2\xa0s" in text
    assert "<0>" not in text
    assert "&lt;0&gt; $x_" in text


def labels_of(images: int) -> dict[str, torch.Tensor]:
    """Random labels of every layout; the last image has none."""
    torch.manual_seed(0)
    labels = {
        "kind": torch.randint(0, 2, (images,)),
        "depth": torch.rand(images, *SIZE) + 0.1,
        "flags": torch.randint(0, 2, (images, 2), dtype=torch.int8),
        "mask": torch.randint(0, 2, (images, *SIZE), dtype=torch.uint8),
        "parts": torch.randint(0, 3, (images, *SIZE), dtype=torch.uint8),
        "points": torch.tensor([[4.0, 5.0, 0.0], [0.0, 0.0, -1.0]]).repeat(images, 1, 1),
        "boxes": torch.tensor([[4.0, 5.0, 20.0, 30.0, 1.0]]).repeat(images, 1, 1),
    }
    labels["kind"][-1], labels["depth"][-1], labels["flags"][-1] = -1, 0, -1
    labels["mask"][-1], labels["parts"][-1] = 255, 255
    labels["points"][-1, :, 2], labels["boxes"][-1, :, 4] = -2, -2
    return labels


def test_a_contact_sheet_draws_every_layout_and_says_what_is_unlabelled() -> None:
    images = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)
    labels = labels_of(2)
    figure = contact_sheet(images, labels, EVERY)
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    words = [text.get_text() for text in figure.axes[0].texts]
    assert {"depth", "mask", "parts", "points", "boxes"} <= set(words)
    assert words.count("unlabelled") == 5
    assert any("kind: unlabelled" in word for word in words)
    for name, column in EVERY.items():
        assert describe(labels[name][1], column) == "unlabelled"
        assert describe(labels[name][0], column) != "unlabelled"


def test_a_contact_sheet_names_the_columns_that_it_leaves_out() -> None:
    columns = {f"m{index}": Column(layout="instances") for index in range(15)}
    labels = {name: torch.zeros(1, *SIZE, dtype=torch.uint8) for name in columns}
    figure = contact_sheet(torch.zeros(1, 3, *SIZE, dtype=torch.uint8), labels, columns)
    assert "not drawn: m12, m13, m14" in [text.get_text() for text in figure.axes[0].texts]


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def artifacts(base: Path) -> Config:
    """A whole folder of artifacts for two tasks and two seeds, with untrained networks."""
    config, manifest = config_of(["kind", "depth"], [0, 1]), manifest_of(LABELS)
    rng = np.random.default_rng(0)
    rows = {
        "id": [f"pet {index}" for index in range(8)],
        "image": [png(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)) for _ in range(8)],
        "kind": pa.array([0, 1, None, 0, 1, 0, 1, 0], pa.int32()),
        "depth": [png(rng.integers(1, 900, SIZE, dtype=np.uint16)) for _ in range(8)],
    }
    table = pa.table(rows)
    for split in ("train", "test"):
        folder = base / "prepare" / "pets" / split
        folder.mkdir(parents=True)
        with pa.OSFile(str(folder / "part-00000.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    write_manifests(base / "prepare", [manifest])
    specs = task_specs(config, {"pets": manifest})
    backbone = BackboneSpec(name="test_resnet", locations=LOCATIONS, size=SIZE)
    stats = {"mean": manifest.mean, "std": manifest.std, "strategy": "branched", "backbone": backbone}
    metric = {"kind": "accuracy", "depth": "rmse"}
    single = {}
    for spec in specs:
        alone = ModelSpec(tasks=(spec,), groups=((0,),) * LOCATIONS, **stats)
        save(SHARING["branched"](alone), base / "pretrain" / spec.name)
        history = [trial(spec.name, 0, "val", spec.name, epoch, metric[spec.name], 0.5) for epoch in (1, 2)]
        write_table(base / "pretrain" / spec.name / "history.parquet", history, TRIALS)
        study = study_of(1)
        single[spec.name] = {
            **vars(study.baselines["<0> $x_"]),
            "metric": metric[spec.name],
            "higher_is_better": spec.name == "kind",
            "news": "what a later version adds",
        }
    write_json(base / "pretrain" / "metrics.json", single)
    shared = ModelSpec(tasks=specs, groups=BranchTree.shared(2, LOCATIONS).groups, **stats)
    trials = []
    for seed in (0, 1):
        save(SHARING["branched"](shared), base / "branched" / f"shared-s{seed}")
        trials.append(trial("shared", seed, "test", "depth", 1 + seed, "abs_rel", 0.2 + 0.1 * seed))
        for task, name in metric.items():
            trials += [trial("shared", seed, "val", task, epoch, name, seed + epoch / 10) for epoch in (1, 2, 3)]
            trials.append(trial("shared", seed, "test", task, 1 + seed, name, 0.7))
            trials.append(trial("no budget asked for it", seed, "test", task, 1, name, 0.1))
    write_table(base / "branched" / "trials.parquet", trials, TRIALS)
    write_json(base / "branched" / "metrics.json", {"shared": {"params": 10, "flops": 20, "seconds": 1.0}})
    sizes = {"cost": 2.0, "params": 10, "flops": 20}
    tree = {"name": "shared", "request": "params 1x, flops 2000000", "groups": shared.groups, **sizes}
    proof = {"lower_bound": 1.5, "optimal": False, "method": "beam", "budget": 10}
    for stage in ("trees", "affinity"):
        (base / stage).mkdir()
    head = {"tasks": list(metric), "unit": "params", "method": "beam", "optimal": False, "trees_in_all": 12}
    write_json(base / "trees" / "chosen.json", {**head, "trees": [{**tree, **proof}]})
    other = BranchTree.split(2, LOCATIONS).groups
    results = {"delta_mtl": [1.0, 2.0], "delta_mtl_val": [0.5, 1.5], "jobs": ["a", "b"], **sizes}
    write_json(
        base / "branched" / "all_trees.json",
        {"exhaustive": False, "trees_in_all": 12, "spearman": None, "p_value": None, "spearman_val": None}
        | {"same_size": None, "same_size_p": None}
        | {
            "trees": [{"name": "shared", "groups": shared.groups, **results}, {"name": "x", "groups": other, **results}]
        },
    )
    write_table(base / "trees" / "trees.parquet", [], TREES)
    write_table(base / "affinity" / "affinity.parquet", [], AFFINITY)
    return config


def trial(name: str, seed: int, split: str, task: str, epoch: int, metric: str, value: float) -> dict:
    base = {"job": f"{name}-s{seed}", "name": name, "key": f"key {name} {seed}", "seed": seed}
    return {**base, "split": split, "task": task, "epoch": epoch, "metric": metric, "value": value}


@pytest.mark.filterwarnings(DECODING)
def test_from_files_to_sheets(tmp_path: Path) -> None:
    study = read_study(artifacts(tmp_path), tmp_path)
    (network,) = study.networks
    assert network.seeds == (0, 1)
    assert network.epochs == (1, 2)
    assert network.val["depth"] == (0.1, 1.2), "validation is that of the kept epoch"
    assert network.test["kind"] == (0.7, 0.7)
    assert study.tasks == ["kind", "depth"]
    assert network.label == "params 1×, flops 2 M"
    assert {row["name"] for row in study.trials} == {SINGLE, "shared"}
    assert [tree.groups for tree in study.trained.trees] == [
        study.search.chosen["shared"].groups,
        BranchTree.split(2, LOCATIONS).groups,
    ]
    assert "25.0 %" in lead(study)
    (table,) = further_tables(study)
    assert [[cell.text for cell in line] for line in table.lines] == [
        ["network", "kind", "depth", "depth"],
        ["single-task networks", "–", "–", "–"],
        ["params 1×, flops 2 M", "–", "0.250", "–"],
    ]
    assert [cell.small for cell in table.lines[0][1:]] == ["class_accuracy ↑", "abs_rel ↓", "within_1.25 ↑"]
    assert [row["test"] for row in table.rows] == [None, None, None, None, 0.25, None]
    assert "Further metrics" in render_page(study, [], "none")
    assert dict(data_tables(study, result_lines(study)))["further"] == table.rows
    stems = [drawing.stem for drawing in draw_figures(study)]
    assert "params-delta" in stems
    assert not {"affinity", "affinity-depth", "front"} & set(stems), "no figure of what is not there"
    drawings = [*draw_samples(study, tmp_path), *draw_contact_sheets(study, tmp_path)]
    assert [drawing.stem for drawing in drawings] == ["samples-pets", "data-pets"]
    samples, sheet = (drawing.rows for drawing in drawings)
    assert len(samples) == 3 * 2 * 3, "images x tasks x (target, single-task, tree)"
    assert {row["text"] for row in samples if row["what"] == "target" and row["task"] == "kind"} == {
        "cat",
        "dog",
        "unlabelled",
    } & {row["text"] for row in samples}
    unlabelled = {row["id"] for row in samples if row["text"] == "unlabelled"}
    assert unlabelled == {"pet 2"}
    assert {row["value"] for row in samples if row["id"] == "pet 2" and row["task"] == "kind"} == {None}
    assert [row["id"] for row in sheet] == ["pet 0", "pet 2", "pet 5"]
    assert sheet[1]["kind"] == "unlabelled"
    for drawing in drawings:
        drawing.figure.savefig(io.BytesIO(), format="png", dpi=40)
