"""What the adapt stage trains: which experts stay and learn in every mode, which jobs there are."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from models.sharing import SHARING
from models.sharing.moe import MoeModel
from models.spec import Route
from pipeline.adapt_jobs import Adaptation, Base, adapted_route, added_jobs, base_of, first_jobs, later_jobs, lwf_jobs
from pipeline.config import Config
from pipeline.moe_jobs import joint_tasks, moe_spec, moe_trials
from pipeline.strategies import MODES, Mode
from tests.pipeline.expert_study import SINGLE, manifests, study

PRUNES = {name for name, mode in MODES.items() if mode.prunes}
NEEDS_USAGE = {name: mode for name, mode in MODES.items() if mode.needs_usage}
SEEDS = range(6)


def base(experts: int = 12, layers: int = 3, **moe: Any) -> tuple[Config, Base]:
    config = study(moe={"experts": experts, "top_k": min(4, experts), **moe})
    spec = moe_spec(config, manifests(), joint_tasks(config))
    return config, Base(spec=spec, experts=(tuple(range(experts)),) * layers, job="base-key")


def draw(seed: int, experts: int = 12, layers: int = 3) -> list[list[float]]:
    """A router's use of the experts; the last layer's is so uneven that a threshold leaves few."""
    rng = np.random.default_rng(seed)
    return [rng.dirichlet([strength] * experts).tolist() for strength in (5.0, 1.0, 0.05)][:layers]


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_most_used_stay_and_what_learns_is_among_them(name: str, seed: int) -> None:
    (config, found), mode, picks = base(), MODES[name], draw(seed)
    route = adapted_route(config, found, "fresh", mode, picks)
    assert (route.dataset, route.top_k) == ("wide", mode.top_k or 4)
    assert bool(route.own) == (mode.learns == "own")
    for layer, kept in enumerate(route.experts):
        removed = set(range(12)) - set(kept)
        assert list(kept) == sorted(set(kept))
        assert len(kept) >= route.top_k
        assert min(picks[layer][number] for number in kept) >= max((picks[layer][gone] for gone in removed), default=0)
        assert len(removed) <= 12 * mode.prune if not mode.threshold else all(picks[layer][n] < 0.05 for n in removed)
        if route.own:
            assert set(route.own[layer]) <= set(kept)
            assert len(route.own[layer]) == mode.experts


@pytest.mark.parametrize("seed", SEEDS)
def test_the_most_and_the_least_used_of_those_that_stay_are_what_they_say(seed: int) -> None:
    (config, found), picks = base(), draw(seed)
    for select, sign in (("most", -1), ("least", 1)):
        mode = Mode.model_validate({"experts": 3, "select": select, "prune": 0.5, "top_k": 2})
        route = adapted_route(config, found, "fresh", mode, picks)
        for layer, own in enumerate(route.own):
            order = sorted(route.experts[layer], key=lambda number: sign * picks[layer][number])
            assert set(own) == set(order[:3])


@pytest.mark.parametrize("select", ["most", "least", "random"])
def test_no_more_learn_than_stay(select: str) -> None:
    config, found = base()
    mode = Mode.model_validate({"experts": 6, "select": select, "prune": 2 / 3})
    route = adapted_route(config, found, "fresh", mode, draw(0))
    assert [len(kept) for kept in route.experts] == [4, 4, 4]
    assert route.own == route.experts


@pytest.mark.parametrize(
    ("experts", "share", "left"),
    [
        (12, 2 / 3, 4),
        (12, 1 / 2, 6),
        (12, 1 / 3, 8),
        (12, 11 / 12, 1),
        (10, 0.1, 9),
        (10, 0.7, 3),
        (3, 2 / 3, 1),
        (4, 2 / 3, 2),
        (5, 0.5, 3),
        (7, 0.0, 7),
    ],
)
def test_a_share_is_removed_and_no_expert_more(experts: int, share: float, left: int) -> None:
    config, found = base(experts)
    mode = Mode(learns="all", prune=share, top_k=1)
    route = adapted_route(config, found, "fresh", mode, draw(1, experts))
    assert [len(kept) for kept in route.experts] == [left] * 3


def test_a_threshold_removes_what_is_below_it_but_leaves_a_token_its_experts() -> None:
    config, found = base(experts=5, layers=2)
    picks = [[0.4, 0.05, 0.049, 0.3, 0.201], [0.96, 0.01, 0.01, 0.01, 0.01]]
    kept = [
        adapted_route(config, found, "fresh", Mode(learns="all", threshold=0.05, top_k=top_k), picks).experts
        for top_k in (1, 2)
    ]
    assert kept == [((0, 1, 3, 4), (0,)), ((0, 1, 3, 4), (0, 1))], "of equals the first"
    both = Mode(learns="all", threshold=0.05, prune=0.5, top_k=1)
    assert adapted_route(config, found, "fresh", both, picks).experts == ((0, 3, 4), (0,))


def test_hybrid_b_is_the_paper_s() -> None:
    """Of 12 experts and 4 a token: 2/3 are removed, 3 a token, two learn (Sec. 4.2)."""
    config, found = base()
    route = adapted_route(config, found, "fresh", MODES["hybrid_b"], draw(2))
    assert route.top_k == 3
    assert [(len(kept), len(own)) for kept, own in zip(route.experts, route.own, strict=True)] == [(4, 2)] * 3


def test_random_experts_are_drawn_by_the_seed_for_each_layer() -> None:
    config, found = base(layers=8)
    drawn = []
    for seed in range(40):
        other = config.model_copy(update={"seed": seed})
        own = adapted_route(other, found, "fresh", MODES["router_2"]).own
        assert own == adapted_route(other, found, "newest", MODES["router_2"]).own
        assert len(set(own)) > 1, "not the same in every layer"
        drawn.append(own)
    assert len(set(drawn)) == 40
    assert {number for own in drawn for layer in own for number in layer} == set(range(12))


def first(config: Config) -> list[Adaptation]:
    return first_jobs(config, manifests(), base_of(config, manifests(), "base-key"))


def later(config: Config, router: str = "router-key") -> list[Adaptation]:
    found, new = base_of(config, manifests(), "base-key"), config.adapt.tasks
    return later_jobs(config, manifests(), found, dict.fromkeys(new, router), dict.fromkeys(new, draw(3, 4)))


def added(config: Config) -> list[Adaptation]:
    return added_jobs(config, manifests(), base_of(config, manifests(), "base-key"))


def lwf(config: Config) -> list[Adaptation]:
    return lwf_jobs(config, manifests(), [], "base-key")


def keys(items: Iterable[Adaptation]) -> dict[str, str]:
    return {item.job.name: item.job.key for item in items}


def test_the_base_is_the_network_of_the_joint_tasks() -> None:
    config = study()
    found = base_of(config, manifests(), "base-key")
    assert found.spec == moe_trials(config, manifests(), SINGLE)[0].job.model
    assert found.experts == ((0, 1, 2, 3),) * 3


def test_a_job_for_every_task_mode_and_learning_rate() -> None:
    modes, lrs = ["full", "router_1", "top_k_1", "prune_1_2"], [0.01, 0.001]
    config = study(adapt={"tasks": ["fresh", "newest"], "modes": modes, "lrs": lrs})
    now, then = first(config), later(config)
    wanted = [(task, mode, lr) for task in ("fresh", "newest") for mode in ["router", *modes[:3]] for lr in lrs]
    assert [(item.task, item.mode, item.lr) for item in now] == wanted, "and the router, which pruning asks for"
    assert [(item.task, item.mode, item.lr) for item in then] == [
        (task, "prune_1_2", lr) for task in ("fresh", "newest") for lr in lrs
    ]
    every = [*now, *then]
    assert len({item.job.key for item in every}) == len({item.job.name for item in every}) == len(every)
    for item in every:
        assert (item.job.train.lr, item.job.trained) == (item.lr, (item.task,))


def test_no_router_that_nobody_asked_for() -> None:
    config = study(adapt={"modes": ["full", "router_2"]})
    assert [item.mode for item in first(config)] == ["full", "router_2"]
    assert later(config) == []
    assert [item.mode for item in first(study(adapt={"modes": []}))] == []
    assert first(study(adapt={"tasks": []})) == []


def test_modes_that_remove_experts_go_on_from_the_router_s_job() -> None:
    config = study(moe={"experts": 4, "top_k": 3}, adapt={"modes": list(MODES)})
    starts = {item.mode: item.job.start for item in [*first(config), *later(config)]}
    assert starts == {
        name: (("network", "router-key"),) if name in PRUNES else (("moe", "base-key"),) for name in MODES
    }
    same, other = keys(later(config)), keys(later(config, router="another"))
    kept = {name.split("-")[1] for name in same if same[name] == other[name]}
    assert kept == NEEDS_USAGE.keys() - PRUNES == {"router_1_most", "router_1_least"}


@pytest.mark.parametrize("change", [{"epochs": 2}, {"optimiser": "sgd"}, {"weight_decay": 0.3}, {"lam": 0.1}], ids=str)
def test_settings_of_the_section_reach_every_job(change: dict[str, Any]) -> None:
    modes = {"modes": ["full", "router", "hybrid_a"]}
    for jobs in (first, later, added) if "lam" in change else (first, later, added, lwf):
        before, after = keys(jobs(study(adapt=modes))), keys(jobs(study(adapt=modes | change)))
        assert before.keys() == after.keys()
        assert not set(before.values()) & set(after.values())


@pytest.mark.parametrize(
    ("change", "whose"),
    [({"added": 2}, added), ({"lwf": 3.0}, lwf), ({"temperature": 1.0}, lwf), ({"modes": ["full"]}, None)],
    ids=["added", "lwf", "temperature", "modes"],
)
def test_settings_of_one_method_leave_the_others_as_they_were(change: dict[str, Any], whose: Any) -> None:
    modes = {"modes": ["full", "hybrid_a"]}
    for jobs in (first, later, added, lwf):
        before, after = keys(jobs(study(adapt=modes))), keys(jobs(study(adapt=modes | change)))
        shared = before.keys() & after.keys()
        assert all((before[name] == after[name]) == (jobs is not whose) for name in shared)


def test_names_do_not_count() -> None:
    """A mode of one's own that does what the paper's does is its job; no expert added is a router alone."""
    own = {"own_modes": {"mine": {"experts": 1}}, "modes": ["router", "router_1", "mine"], "added": 0}
    config = study(adapt=own)
    found = {item.mode: item.job.key for item in [*first(config), *added(config)]}
    assert found["mine"] == found["router_1"] != found["router"] == found["added"]


def test_what_is_remembered_and_what_the_new_network_knows() -> None:
    for item in [*first(study()), *later(study()), *added(study())]:
        settings = dict(item.job.model.settings)
        assert settings["remembered"] == ("square", "high", "other")
        assert item.job.model.task_names == ("fresh",)
        assert item.job.lam == 0.0
        network = MoeModel(item.job.model)
        assert (network.settings.learns, network.settings.adapter) == (
            (MODES[item.mode].learns, MODES[item.mode].adapter) if item.mode in MODES else ("own", 0)
        )


def test_new_experts_are_numbered_after_the_base_s() -> None:
    for count, own in ((0, ()), (1, (4,)), (2, (4, 5))):
        (item,) = added(study(adapt={"added": count}))
        (route,) = item.job.model.routes
        assert route == Route(dataset="wide", top_k=2, experts=((0, 1, 2, 3, *own),) * 3, own=(own,) * 3)


@pytest.mark.parametrize("upcycled", [False, True])
def test_learning_without_forgetting_goes_on_task_after_task(upcycled: bool) -> None:
    config = study(moe={"upcycled": upcycled}, adapt={"tasks": ["fresh", "newest"], "lwf": 0.7, "lrs": [0.1, 0.01]})
    found = [lwf_jobs(config, manifests(), learned, f"after {len(learned)}") for learned in ([], ["fresh"])]
    assert [[item.task for item in step] for step in found] == [["fresh"] * 2, ["newest"] * 2]
    for step, (item, _) in enumerate(found):
        assert item.job.start == (("network", f"after {step}"),)
        assert (item.job.trained, item.job.lam) == ((item.task,), 0.7)
        names, old = ("kind", "field", "fresh", "newest")[: 3 + step], ("square", "high", "wide")[: 2 + step]
        assert item.job.model.task_names == names
        assert dict(item.job.model.settings)["old"] == old
        network = SHARING["lwf"](item.job.model)
        new = [
            weight for name, weight in network.named_parameters() if f".routers.on_{('wide', 'other')[step]}" in name
        ]
        assert new
        assert all(weight.std() > 0 for weight in new), "an undecided router would give all tokens the same experts"
