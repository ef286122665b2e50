"""Which network to take at a budget: what is claimed holds against the numbers, and nothing is claimed inside noise."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest
from matplotlib import rc_context
from scipy import stats

from pipeline.artifacts import write_json
from pipeline.report.choice import Choice, choice_sentences, choose, contenders, limits
from pipeline.report.found_moe import read_moe
from pipeline.report.inline import exact_text, json_text, script_texts
from pipeline.report.moe import MoeChapter
from pipeline.report.network import SINGLE, Contender, Network
from pipeline.report.noise import Noise, noise_of
from pipeline.report.pareto import costs, front, pareto_data, pareto_figure
from pipeline.report.study import Study, distinct
from pipeline.report.style import STYLE
from tests.pipeline.moe_cases import moe_metrics
from tests.pipeline.taps_cases import OTHERS
from tests.pipeline.test_report import study_of
from tests.pipeline.test_report_taps import study_with_taps


def with_deltas(study: Study, deltas: dict[str, Sequence[float]], val: dict[str, float] | None = None) -> Study:
    """The study with networks of given Δ_MTL on test by seed, and on validation."""

    def values(network: Network, split: str) -> dict[str, tuple[float, ...]]:
        wanted = deltas[network.name]
        if split == "val" and val:
            wanted = [val[network.name]] * len(wanted)
        signed = {task: 1 if row.higher_is_better else -1 for task, row in study.baselines.items()}
        return {
            task: tuple(getattr(row, split) * (1 + signed[task] * delta / 100) for delta in wanted)
            for task, row in study.baselines.items()
        }

    trees = [
        replace(
            tree,
            keys=tuple(f"{tree.name} {seed}" for seed in range(len(deltas[tree.name]))),
            seeds=tuple(range(len(deltas[tree.name]))),
            test=values(tree, "test"),
            val=values(tree, "val"),
        )
        for tree in study.trees
    ]
    return replace(study, trees=trees)


def noise_in(study: Study) -> Noise:
    return noise_of(study, [item.network for item in contenders(study)])


@pytest.mark.parametrize("number", range(6))
def test_the_front_is_what_nothing_else_dominates(number: int) -> None:
    rng = np.random.default_rng(number)
    points = [(float(x), float(y)) for x, y in rng.integers(0, 6, (12, 2))]
    found = front(points)
    kept = [points[place] for place in found]
    assert kept == sorted(kept)
    for place, (x, y) in enumerate(points):
        better = [(a, b) for a, b in points if a <= x and b >= y and (a, b) != (x, y)]
        assert (points[place] in kept) == (not better)
    assert len(set(kept)) == len(kept)


def test_every_network_of_every_strategy_is_a_contender_once(tmp_path: Path) -> None:
    study = study_with_taps(tmp_path, 3)
    found = {item.network.name: item for item in contenders(study)}
    (chapter,) = study.chapters
    trees = {network.name for network, _ in distinct(study.trees)}
    taps = {network.name for network, _ in distinct(chapter.networks())}
    assert set(found) == {SINGLE} | trees | taps | set(OTHERS)
    base = study.baselines[study.tasks[0]]
    for method, (_, share) in OTHERS.items():
        network = found[method].network
        assert network.params == base.params + 2 * int(50_000 * share)
        assert set(network.test) == set(study.tasks), "the base's own task too"
        assert network.test[study.tasks[0]] == (base.test,)
    single = found[SINGLE].network
    assert study.deltas(single) == [0]
    assert single.params == sum(row.params for row in study.baselines.values())
    assert set(found["taps-lam0.5"].sketch["layers"]) == set(study.tasks[1:])
    assert len(found["shared"].sketch["tree"]) == 3


def test_networks_with_experts_stand_beside_the_dense_ones(tmp_path: Path) -> None:
    study = study_of(3)
    metric = {task: row.metric for task, row in study.baselines.items()}
    raw = moe_metrics(metric, scratch={task: row.job for task, row in study.baselines.items()}, network=True)
    write_json(tmp_path / "moe.json", raw)
    moe = read_moe(tmp_path / "moe.json", study.tasks, {task: vars(row) for task, row in study.baselines.items()})
    assert moe is not None
    found = contenders(replace(study, chapters=[MoeChapter(moe)]))
    groups = {item.network.name: item.group for item in found}
    assert groups["moe-lam0"] == "MoE"
    assert groups["finetune"] == "dense networks"
    assert "scratch" not in groups, "those are the single-task networks"
    experts = next(item for item in found if item.network.name == "moe-lam0").sketch["experts"]
    assert np.array(experts).shape == (4, 3, 12)


def test_what_has_no_number_is_left_out() -> None:
    study = study_of(2)
    broken = replace(study.trees[-1], test=dict.fromkeys(study.tasks, (math.nan,)))
    study = replace(study, trees=[*study.trees[:-1], broken])
    assert "split" not in {item.network.name for item in contenders(study)}
    json_text(pareto_figure(study).widget.data)  # pyright: ignore[reportOptionalMemberAccess]


def test_budgets_are_the_limits_that_the_trees_were_chosen_for() -> None:
    study = study_of(2)
    shared = study.search.chosen["shared"]
    assert dict(limits(study)) == {
        "1.5×": {"params": 1.5 * shared.params},
        "2×": {"params": 2 * shared.params},
    }
    tree = replace(study.search.chosen["budget-2x"], request="params 3000, flops 2x")
    both = replace(study, search=replace(study.search, chosen={"shared": shared, "both": tree}))
    assert list(dict(limits(both)).values()) == [{"params": 3000, "flops": 2 * shared.flops}]


def test_noise_over_seeds_is_pooled() -> None:
    deltas = {"shared": (1.0, 2.0, 4.0), "budget-1.5x": (0.0, 1.0), "budget-2x": (3.0,), "split": (5.0, 5.5)}
    noise = noise_in(with_deltas(study_of(3), deltas))
    several = [np.array(values) for values in deltas.values() if len(values) > 1]
    centred = np.concatenate([values - values.mean() for values in several])
    freedom = sum(len(values) - 1 for values in several)
    wanted = stats.t.ppf(0.975, freedom) * math.sqrt((centred**2).sum() / freedom)
    assert noise.factor == pytest.approx(wanted)
    assert noise.least_lead(3, 1) == pytest.approx(wanted * math.sqrt(4 / 3))


def test_networks_that_differ_by_chance_alone_are_told_apart_in_one_case_of_twenty() -> None:
    rng, told = np.random.default_rng(0), 0
    study = study_of(1)
    for _ in range(400):
        draws = {tree.name: rng.normal(size=3).tolist() for tree in study.trees}
        drawn = with_deltas(study, draws)
        lead = noise_of(drawn, [network for network, _ in distinct(drawn.trees)]).least_lead(3, 3)
        assert lead is not None
        told += abs(mean(draws["shared"]) - mean(draws["split"])) > lead
    assert 400 * 0.02 < told < 400 * 0.09


def test_one_seed_is_judged_by_the_networks_that_were_trained_twice() -> None:
    study = study_of(4)
    changes = np.array([row.change(study.trees[-1].test[task][0]) for task, row in study.baselines.items()])
    lead = noise_in(study).least_lead(1, 1)
    assert lead == pytest.approx(max(abs(changes.mean()), 1.96 * np.sqrt((changes**2).mean() / 4)), rel=1e-3)
    assert "trained twice" in noise_in(study).words
    without = replace(study, trees=study.trees[:-1])
    assert noise_in(without).factor is None
    assert "No lead counts" in noise_in(without).words


@pytest.mark.parametrize("number", range(12))
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_choice_is_the_best_on_validation_and_its_rivals_are_sorted_by_noise(number: int, seeds: int) -> None:
    rng = np.random.default_rng(number)
    study = study_of(3, seeds)
    study = with_deltas(study, {tree.name: rng.normal(0, 3, seeds).tolist() for tree in study.trees})
    found, noise = contenders(study), noise_in(study)
    most = {"params": float(rng.integers(900, 4500))}
    choice = choose(study, found, noise, most)
    inside = [item for item in found if item.network.params <= most["params"]]
    if not inside:
        assert choice is None
        return
    assert choice is not None
    assert choice.best in inside
    score = {item.network.name: mean(study.deltas(item.network, "val")) for item in inside}
    assert score[choice.best.network.name] == max(score.values())
    test = {item.network.name: mean(study.deltas(item.network)) for item in inside}
    for item in inside:
        if item is choice.best:
            continue
        lead = noise.least_lead(len(choice.best.network.seeds), len(item.network.seeds))
        assert lead is not None
        gap = test[choice.best.network.name] - test[item.network.name]
        assert (item in choice.equals) == (abs(gap) <= lead)
        assert (item in choice.ahead) == (gap < -lead)


@pytest.mark.parametrize(
    ("test", "val", "words", "never"),
    [
        # far apart: one is ahead of everything
        ({"split": 0.3, "budget-2x": 20.0}, {"budget-2x": 20.0}, "ahead of everything else", "No clear winner"),
        # inside noise: no winner, and the smallest of them is named
        ({"split": 4.0, "budget-2x": 4.5}, {"budget-2x": 9.0}, "cannot be told from", "ahead of everything"),
        # validation and test disagree
        (
            {"split": 0.3, "budget-1.5x": 20.0},
            {"budget-2x": 9.0},
            "validation and test disagree",
            "ahead of everything",
        ),
    ],
)
def test_no_winner_is_named_inside_noise(test: dict, val: dict, words: str, never: str) -> None:
    study = study_of(3)
    names = [tree.name for tree in study.trees]
    drawn = with_deltas(
        study, {name: [test.get(name, 0.0)] for name in names}, {name: val.get(name, -1.0) for name in names}
    )
    sentences = dict(choice_sentences(drawn))
    assert words in sentences["any size"]
    assert never not in sentences["any size"]
    assert "2×" in sentences["any size"]
    assert set(sentences) >= {"any size", "noise"}


def test_without_a_measure_of_noise_nothing_is_claimed() -> None:
    study = study_of(3)
    sentences = dict(choice_sentences(replace(study, trees=study.trees[:-1])))
    assert "Nothing says whether that is more than chance" in sentences["any size"]
    for text in sentences.values():
        assert "more than noise" not in text


@pytest.mark.parametrize(("number", "seeds"), [(1, 1), (3, 2), (40, 1)])
def test_the_widget_has_what_the_table_has(number: int, seeds: int) -> None:
    study = study_of(number, seeds)
    with rc_context(STYLE):
        drawing = pareto_figure(study)
    assert drawing.widget is not None
    data = json.loads(json_text(drawing.widget.data))
    assert data["tasks"] == study.tasks
    rows = {row["name"]: [one for one in drawing.rows if one["name"] == row["name"]] for row in drawing.rows}
    assert {point["name"] for point in data["points"]} == set(rows)
    for point in data["points"]:
        mine = rows[point["name"]]
        assert point["test"] == pytest.approx(mean(row["delta_mtl"] for row in mine), abs=1e-3)
        assert point["val"] == pytest.approx(mean(row["delta_mtl_val"] for row in mine), abs=1e-3)
        assert (point["params"], point["macs"]) == (mine[0]["params"], mine[0]["macs"])
        assert point["test"] == pytest.approx(mean(point["changes"]), abs=1e-3), "Δ_MTL is the mean of the bars"
        if len(mine) > 1:
            assert point["spread"] == pytest.approx(stdev(row["delta_mtl"] for row in mine), abs=1e-3)
        else:
            assert point["spread"] is None
    kept = {str(chosen.groups) for chosen in study.search.chosen.values()}
    assert len(data["others"]) == sum(str(tree.groups) not in kept for tree in study.trained.trees)


def test_training_time_is_that_of_one_seed_with_its_base(tmp_path: Path) -> None:
    study = study_with_taps(tmp_path, 3, 2)
    job = study.baselines[study.tasks[0]].job
    (chapter,) = study.chapters
    taps = replace(chapter.taps, base=replace(chapter.taps.base, job=job))  # pyright: ignore[reportAttributeAccessIssue]
    study = replace(study, chapters=[type(chapter)(taps, {})])  # pyright: ignore[reportCallIssue]
    found = {item.network.name: costs(item)["seconds"] for item in contenders(study)}
    assert found["shared"] == 1.0, "two seeds took two seconds"
    base = study.baselines[study.tasks[0]].seconds
    assert found["fine_tuning"] == pytest.approx(base + 2 * 12.3)
    assert found["taps-lam0"] == pytest.approx(base + 80.0)


HOSTILE = [
    "</script><script>alert(1)</script>",
    "\"quoted\" 'task'",
    "<b>&amp;",
    "naïve 木 \u2028 \U0001f333",
    "__proto__",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_can_leave_its_script(text: str) -> None:
    inside = json_text({text: [text, 1.5, None]})
    assert not set("<>&\u2028\u2029") & set(inside)
    assert json.loads(inside) == {text: [text, 1.5, None]}


def test_json_has_no_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text({"value": math.nan})
    assert exact_text(math.nan) == exact_text(None) == ""
    assert exact_text(0.25) == ' data-value="0.25"'


def test_only_the_scripts_of_the_figures_on_the_page_are_in_it() -> None:
    none, one = script_texts([]), script_texts(["pareto", "pareto"])
    assert len(one) == len(none) + 1
    assert one[-1].count("coppice.widget(") == 1
    for text in one:
        for word in ("fetch(", "XMLHttpRequest", "import(", "eval(", "localStorage", "new Function"):
            assert word not in text


def test_a_choice_knows_no_more_than_its_contenders() -> None:
    study = study_of(1)
    only: list[Contender] = contenders(study)[:1]
    choice = choose(study, only, noise_in(study))
    assert choice == Choice(best=only[0], runner_up=None, equals=[], ahead=[], least_lead=None)
    assert pareto_data(study, only, noise_in(study))["points"][0]["label"] == "single-task networks"
