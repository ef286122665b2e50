"""Interactive figures hold what the static ones beside them do, as JSON without NaN, each for a script of its own."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
from matplotlib import rc_context

from pipeline.artifacts import write_json
from pipeline.report import adapt_figures, moe_figures, widget
from pipeline.report.adapt import AdaptChapter
from pipeline.report.affinity_figures import affinity_maps
from pipeline.report.change_figures import changes_figure
from pipeline.report.forgetting_figure import forgetting_figure
from pipeline.report.found_adapt import read_adapt
from pipeline.report.found_moe import read_moe
from pipeline.report.found_taps import Layer, read_taps
from pipeline.report.found_trees import read_search
from pipeline.report.lambda_figure import lambda_figure
from pipeline.report.moe import MoeChapter
from pipeline.report.study import Study, distinct
from pipeline.report.style import STYLE, Drawing, task_colours
from pipeline.report.taps import TapsChapter
from pipeline.report.taps_layers import chosen_layers, layer_kind
from pipeline.report.tree_figure import tree_figure
from pipeline.report.widget import plain
from tests.pipeline.moe_cases import adapt_metrics, moe_metrics
from tests.pipeline.taps_cases import taps_metrics
from tests.pipeline.test_report import LOCATIONS, study_of

SCRIPTS = Path(widget.__file__).parent / "widgets"
MIXED = ("rmse", "accuracy")  # the metrics of study_of
COSTS = {"params": [10, 20, 40], "flops": [100, 200, 400]}


def data_of(drawing: Drawing) -> Mapping[str, Any]:
    """What the page's script gets: through JSON and back."""
    assert drawing.widget is not None
    return json.loads(json.dumps(drawing.widget.data, allow_nan=False))


def whole_study(folder: Path, number: int, seeds: int = 1) -> Study:
    """A study with every strategy: TAPS starts from its first task, the experts are adapted to its last two."""
    study = study_of(number, seeds)
    metric = {task: row.metric for task, row in study.baselines.items()}
    old, new = ({task: metric[task] for task in part} for part in (study.tasks[:-2], study.tasks[-2:]))
    alone = {task: row.job for task, row in study.baselines.items()}
    raw = taps_metrics(study.tasks[1:], metrics=MIXED[::-1], networks=study.tasks, base=study.tasks[0])
    write_json(folder / "taps.json", raw)
    write_json(folder / "moe.json", moe_metrics(old, scratch=alone, lams=(0.0, 0.01, 0.1)))
    write_json(folder / "adapt.json", adapt_metrics(new, old=old))
    taps = read_taps(folder / "taps.json", study.tasks)
    moe = read_moe(folder / "moe.json", study.tasks, {task: vars(row) for task, row in study.baselines.items()})
    adapt = read_adapt(folder / "adapt.json", study.tasks)
    assert taps is not None
    assert moe is not None
    assert adapt is not None
    chapters = [TapsChapter(taps, task_colours(study.tasks)), MoeChapter(moe), AdaptChapter(adapt)]
    return replace(study, chapters=chapters)


def drawings_of(study: Study, stem: str = "") -> list[Drawing]:
    """The figures that have a widget, or the one of a stem."""
    taps, moe, adapt = study.chapters
    assert isinstance(taps, TapsChapter)
    assert isinstance(moe, MoeChapter)
    assert isinstance(adapt, AdaptChapter)
    assert adapt.adapt.continual is not None
    draw = {
        "affinity": partial(affinity_maps, study),
        "trees": partial(tree_figure, study),
        "changes": partial(changes_figure, study),
        "taps_layers": partial(chosen_layers, taps.taps, taps.colours),
        "taps_lambda": partial(lambda_figure, taps.taps, taps.colours),
        "moe_usage": partial(moe_figures.usage_figure, moe.moe),
        "adapt_usage": partial(adapt_figures.usage_figure, adapt.adapt),
        "adapt_forgetting": partial(forgetting_figure, adapt.adapt, adapt.adapt.continual),
    }
    with rc_context(STYLE):
        return [draw[stem]()] if stem else [make() for make in draw.values()]


@pytest.mark.parametrize(("number", "seeds"), [(3, 1), (13, 2)])
def test_every_widget_has_its_script_and_json_without_nan(tmp_path: Path, number: int, seeds: int) -> None:
    drawings = drawings_of(whole_study(tmp_path, number, seeds))
    kinds = {drawing.widget.kind for drawing in drawings if drawing.widget and data_of(drawing)}
    assert kinds == {"affinity", "tree", "changes", "layers", "lambda", "experts", "forgetting"}
    assert kinds <= {script.stem for script in SCRIPTS.glob("*.js")}


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.js")), ids=lambda path: path.stem)
def test_every_script_holds_one_widget_of_its_name_and_asks_for_nothing(script: Path) -> None:
    text = script.read_text()
    assert re.findall(r'coppice\.widget\("(\w+)"', text) == [script.stem]
    for word in ("fetch(", "XMLHttpRequest", "eval(", "localStorage", "import "):
        assert word not in text
    assert not re.search(r"(fill|stroke):\s*(#|black|white)", text), "colours are those of the page, light or dark"


@pytest.mark.parametrize("number", [2, 5])
def test_affinities_are_those_of_the_rows(number: int) -> None:
    study = study_of(number)
    rng = np.random.default_rng(number)
    values = {
        (d, frozenset((a, b))): float(rng.random())
        for d in range(1, LOCATIONS + 1)
        for a in study.tasks
        for b in study.tasks
    }
    rows = [
        {**row, "value": values[row["location"], frozenset((row["task_a"], row["task_b"]))]} for row in study.affinity
    ]
    with rc_context(STYLE):
        data = data_of(affinity_maps(replace(study, affinity=rows)))
    pairs = [(a, b) for i, a in enumerate(data["tasks"]) for b in data["tasks"][i + 1 :]]
    for d, location in enumerate(data["maps"]):
        wanted = [values[d + 1, frozenset(pair)] for pair in pairs]
        assert location["value"] == pytest.approx(wanted, rel=1e-5)
        assert location["null_high"] == [0.6] * len(pairs)
    groups = {tree["label"]: tree["groups"] for tree in data["trees"]}
    for network, label in distinct(study.trees):
        assert groups[label] == [list(row) for row in study.search.chosen[network.name].groups]


def test_an_affinity_that_is_not_known_is_none() -> None:
    study = study_of(2)
    rows = [{**row, "value": math.nan} if row["location"] == 1 else row for row in study.affinity]
    with rc_context(STYLE):
        data = data_of(affinity_maps(replace(study, affinity=rows)))
    assert [location["value"][0] for location in data["maps"]] == [None, pytest.approx(0.7), pytest.approx(0.5)]


@pytest.mark.parametrize("number", [1, 2, 5, 13])
def test_trees_hold_their_branches_with_the_most_unlike_pair_of_each(number: int) -> None:
    study = study_of(number)
    study = replace(study, search=replace(study.search, block_costs=COSTS))
    with rc_context(STYLE):
        drawing = tree_figure(study)
    data = data_of(drawing)
    assert data["costs"] == COSTS
    rows = [(row["name"], row["location"], row["tasks"]) for row in drawing.rows]
    names = {label: network for network, label in distinct(study.trees)}
    for tree in data["trees"]:
        network = names[tree["label"]]
        found = [
            (network.name, d + 1, " ".join(data["tasks"][t] for t in branch["tasks"]))
            for d, location in enumerate(tree["locations"])
            for branch in location
        ]
        assert found == [row for row in rows if row[0] == network.name]
        for d, location in enumerate(tree["locations"]):
            far = 1 - (0.9 - 0.2 * d)
            assert [branch["apart"] for branch in location] == [
                pytest.approx(far if len(branch["tasks"]) > 1 else 0) for branch in location
            ]
        assert sorted(tree["order"]) == list(range(number))
        assert mean(leaf["change"] for leaf in tree["leaves"]) == pytest.approx(tree["delta"], rel=1e-4)


def test_a_search_of_before_has_no_costs_of_blocks() -> None:
    head = {"unit": "params", "method": "exact", "optimal": True, "trees_in_all": 22, "trees": []}
    assert read_search(head).block_costs == {}
    assert read_search(head | {"block_costs": COSTS}).block_costs == COSTS


@pytest.mark.parametrize("metrics", [("accuracy",), MIXED])
def test_layers_and_curves_hold_every_run(tmp_path: Path, metrics: Sequence[str]) -> None:
    tasks = ["a", "b", "c"]
    raw = taps_metrics(tasks, metrics=metrics)
    write_json(tmp_path / "taps.json", raw)
    taps = read_taps(tmp_path / "taps.json", tasks)
    assert taps is not None
    with rc_context(STYLE):
        layers, curves = (draw(taps, task_colours(tasks)) for draw in (chosen_layers, lambda_figure))
    runs = {(run["task"], run["lam"]): run for run in raw["runs"] if run["method"] == "taps"}
    for task in data_of(layers)["tasks"]:
        for found in task["runs"]:
            run = runs[task["name"], found["lam"]]
            assert found["scores"] == pytest.approx(run["scores"], rel=1e-5)
            assert found["active"] == run["active"]
            assert found["chosen"] == (run["name"] == raw["tasks"][task["name"]]["chosen"])
            assert [found[key] for key in ("layers_share", "params_share", "test")] == pytest.approx(
                [run[key] for key in ("layers_share", "params_share", "test")], rel=1e-5
            )
    least = min(lam for _, lam in runs)
    for task in data_of(curves)["tasks"]:
        for point in task["points"]:
            run, first = runs[task["name"], point["lam"]], runs[task["name"], least]
            sign = -1 if raw["tasks"][task["name"]]["metric"] == "rmse" else 1
            gain = 100 * sign * (run["test"] - first["test"]) / first["test"]
            assert point["quality"] == pytest.approx(run["test"] if len(metrics) == 1 else gain, rel=1e-4, abs=1e-6)
            assert (point["layers"], point["params"]) == pytest.approx(
                (100 * run["layers_share"], 100 * run["params_share"]), rel=1e-5
            )
    assert [row["lam"] for row in curves.rows] == [lam for _, lam in runs]


@pytest.mark.parametrize(
    ("name", "type_", "kind"),
    [
        ("layer1.0.conv1", "Conv2d", "convolution"),
        ("layer2.0.downsample.0", "Conv2d", "downsampling"),
        ("layers.1.downsample.reduction", "Linear", "downsampling"),
        ("blocks.3.attn.qkv", "Linear", "queries, keys, values"),
        ("blocks.3.attn.proj", "Linear", "projection"),
        ("blocks.3.mlp.fc2", "Linear", "MLP"),
        ("patch_embed.proj", "Conv2d", "convolution"),
        ("fc", "Linear", "linear"),
    ],
)
def test_the_kind_of_a_layer(name: str, type_: str, kind: str) -> None:
    assert layer_kind(Layer(name=name, type=type_, params=1, location=1)) == kind


def test_every_kind_of_layer_has_a_letter_of_its_own() -> None:
    text = (SCRIPTS / "layers.js").read_text()
    (letters,) = re.findall(r"const letters = \{ (.*) \};", text)
    found = {kind.strip(", "): letter for kind, letter in re.findall(r'"?([\w, ]+?)"?: "(\w)"', letters)}
    assert len(set(found.values())) == len(found)
    assert {"convolution", "downsampling", "queries, keys, values", "projection", "MLP", "linear"} == set(found)


@pytest.mark.parametrize("stem", ["moe_usage", "adapt_usage"])
def test_experts_hold_the_shares_of_the_rows(tmp_path: Path, stem: str) -> None:
    (drawing,) = drawings_of(whole_study(tmp_path, 5), stem)
    data, key = data_of(drawing), "lam" if stem == "moe_usage" else "mode"
    runs = list(dict.fromkeys(row[key] for row in drawing.rows))
    assert len(data["uses"]) == len(runs)
    for use, run in zip(data["uses"], runs, strict=True):
        mine = [row["share"] for row in drawing.rows if row[key] == run]
        assert np.ravel(use["shares"]) == pytest.approx(mine, rel=1e-5)
    assert [layer["weights"] for layer in data["layers"]] == [2 * 128 * 128] * 4
    assert len(data["uses"][data["at"]]["information"]) == (4 if stem == "moe_usage" else 0)
    assert data["most"] == pytest.approx(math.log(3) if stem == "moe_usage" else 0, rel=1e-5)


def test_forgetting_holds_every_value_and_what_stayed_the_same(tmp_path: Path) -> None:
    (drawing,) = drawings_of(whole_study(tmp_path, 5), "adapt_forgetting")
    data, rows = data_of(drawing), {}
    for row in drawing.rows:
        rows.setdefault(row["method"], []).append(
            (row["step"], row["task"], row["test"], row["change"], row["unchanged"])
        )
    for method, wanted in zip(data["methods"], rows.values(), strict=True):
        found = [
            (step, data["tasks"][place]["name"], cell["value"], cell["change"], cell["same"])
            for step, cells in enumerate(method["cells"])
            for place, cell in enumerate(cells)
            if cell["value"] is not None
        ]
        assert [(step, task, same) for step, task, _, _, same in found] == [(s, t, same) for s, t, _, _, same in wanted]
        for (_, _, value, change, _), (_, _, test, since, _) in zip(found, wanted, strict=True):
            assert value == pytest.approx(test, rel=1e-5)
            assert change == (None if since is None else pytest.approx(since, rel=1e-5))


@pytest.mark.parametrize(("number", "seeds"), [(1, 1), (5, 3), (13, 2)])
def test_changes_are_means_and_deviations_of_the_rows(number: int, seeds: int) -> None:
    study = study_of(number, seeds)
    with rc_context(STYLE):
        drawing = changes_figure(study)
    data, names = data_of(drawing), {label: network.name for network, label in distinct(study.networks)}
    for network in data["networks"]:
        for task, found in zip(data["tasks"], network["changes"], strict=True):
            mine = [r["change"] for r in drawing.rows if (r["name"], r["task"]) == (names[network["label"]], task)]
            assert found["mean"] == pytest.approx(mean(mine), rel=1e-5)
            assert found["spread"] == (pytest.approx(stdev(mine), rel=1e-5) if seeds > 1 else None)
        assert network["delta"] == pytest.approx(mean(found["mean"] for found in network["changes"]), rel=1e-4)


@pytest.mark.parametrize(
    ("value", "wanted"), [(1 / 3, 0.333333), (math.nan, None), (math.inf, None), (None, None), (0, 0)]
)
def test_plain_numbers(value: float | None, wanted: float | None) -> None:
    assert plain(value) == wanted
