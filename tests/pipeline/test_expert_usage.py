"""How routers use the experts, against a count by hand over all tokens of all validation images."""

from collections.abc import Iterator, Sequence
from math import log

import numpy as np
import pytest
import torch
from torch import Tensor

from models.sharing.moe import MoeModel
from models.spec import Route
from pipeline.artifacts import shards
from pipeline.expert_usage import Usage, expert_usage, layers_of
from pipeline.loading import Split, in_order
from tests.pipeline.cases import DECODING
from tests.pipeline.expert_study import LAYERS, SETS, network_of, prepare_all, study

pytestmark = pytest.mark.filterwarnings(DECODING)
CONFIG = study(moe={"tasks": ["kind", "field"]})
FEWER = Route(dataset="square", top_k=1, experts=((0, 2), (1, 2, 3), (3,)))
GROWN = Route(dataset="square", top_k=2, experts=((0, 1, 2, 3, 4),) * 3, own=((4,),) * 3)
DATASETS = ("square", "high")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> list[Split]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("prepared")
    found = prepare_all(folder)
    return [
        Split(dataset=name, paths=shards(name, "val", folder), size=SETS[name]["size"], columns=found[name].columns)
        for name in DATASETS
    ]


def network(*routes: Route) -> MoeModel:
    """Its routers are sure of themselves, so that their choices differ from token to token."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        built = network_of(CONFIG, *routes)
        for layer in built.layers.values():
            for dataset in layer.numbers:
                torch.nn.init.normal_(layer.router(dataset).weight, std=2.0)
    return built


def tokens_of(built: MoeModel, split: Split) -> list[np.ndarray]:
    """What each layer gets from the images of a split, all at once [T, C]."""
    got: list[Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs: got.append(inputs[0])) for layer in built.layers.values()
    ]
    (whole,) = in_order(split, len(split))
    with torch.no_grad():
        built.eval()(whole.images, [task.name for task in built.spec.tasks if task.dataset == split.dataset])
    for hook in hooks:
        hook.remove()
    return [x.flatten(0, -2).double().numpy() for x in got]


def by_hand(built: MoeModel, split: Split) -> Iterator[tuple[dict[int, float], dict[int, float]]]:
    """For each layer the shares of choices and the mean probabilities, by the experts' numbers."""
    for x_TC, layer in zip(tokens_of(built, split), built.layers.values(), strict=True):
        router, numbers = layer.router(split.dataset), layer.numbers[split.dataset]
        scores_TE = x_TC @ router.weight.detach().double().numpy().T
        probs_TE = np.exp(scores_TE) / np.exp(scores_TE).sum(1, keepdims=True)
        counts = dict.fromkeys(numbers, 0)
        for row in scores_TE:
            for place in np.argsort(-row)[: router.top_k]:
                counts[numbers[place]] += 1
        total = len(x_TC) * router.top_k
        yield {n: count / total for n, count in counts.items()}, dict(zip(numbers, probs_TE.mean(0), strict=True))


@pytest.mark.parametrize("routes", [(), (FEWER,), (GROWN,)], ids=["all", "fewer", "grown"])
def test_use_is_what_a_count_by_hand_gives(splits: Sequence[Split], routes: Sequence[Route]) -> None:
    built = network(*routes)
    found = expert_usage(built, splits, [3, 2], CPU)
    experts = max(4, *(len(numbers) for route in routes for numbers in route.experts), 0)
    for m, split in enumerate(splits):
        for layer, (shares, means) in enumerate(by_hand(built, split)):
            picks, probs = found.picks[layer][m], found.probs[layer][m]
            assert picks == pytest.approx([shares.get(number, 0.0) for number in range(experts)], abs=1e-9)
            assert probs == pytest.approx([means.get(number, 0.0) for number in range(experts)], abs=1e-5)


@pytest.mark.parametrize("routes", [(), (FEWER,), (GROWN,)], ids=["all", "fewer", "grown"])
def test_shares_are_of_one_whole_and_what_is_not_there_has_none(
    splits: Sequence[Split], routes: Sequence[Route]
) -> None:
    built = network(*routes)
    found = expert_usage(built, splits, [7, 7], CPU)
    for place, layer in enumerate(built.layers.values()):
        for m, dataset in enumerate(DATASETS):
            picks, probs = found.picks[place][m], found.probs[place][m]
            assert sum(picks) == pytest.approx(1)
            assert sum(probs) == pytest.approx(1)
            gone = set(range(len(picks))) - set(layer.numbers[dataset])
            assert all(picks[number] == probs[number] == 0 for number in gone)
            assert max(picks) <= 1 / layer.router(dataset).top_k + 1e-12
    assert all(0 <= bits <= log(2) + 1e-6 for bits in found.information())


def test_of_one_data_set_alone_rows_are_as_long_as_the_base_has_experts(splits: Sequence[Split]) -> None:
    task = CONFIG.model_copy(update={"moe": CONFIG.moe.model_copy(update={"tasks": ["kind"]})})
    built = network_of(task, FEWER)
    found = expert_usage(built, splits[:1], [4], CPU)
    assert [[len(row) for row in layer] for layer in found.picks] == [[4], [4], [4]]
    assert found.picks[2][0] == found.probs[2][0] == [0.0, 0.0, 0.0, 1.0]


def test_looking_changes_nothing(splits: Sequence[Split]) -> None:
    built = network()
    before = {name: tensor.clone() for name, tensor in built.state_dict().items()}
    first, second = (expert_usage(built, splits, [3, 3], CPU) for _ in range(2))
    assert first == second
    assert all(torch.equal(before[name], tensor) for name, tensor in built.state_dict().items())
    assert not any(layer.router(name)._forward_hooks for layer in built.layers.values() for name in DATASETS)


def test_information_is_none_where_rows_agree_and_all_where_they_have_nothing_in_common() -> None:
    rng = np.random.default_rng(1)
    equal, apart = [[0.2, 0.3, 0.5]] * 3, np.eye(3).tolist()
    some = rng.dirichlet([0.5] * 3, size=3).tolist()
    none, between, whole = Usage(picks=[], probs=[equal, some, apart]).information()
    assert none == pytest.approx(0, abs=1e-6)
    assert whole == pytest.approx(log(3))
    marginal = np.mean(some, axis=0)
    assert between == pytest.approx(np.mean(np.sum(some * np.log(some / marginal), axis=1)), abs=1e-5)


def test_layers_are_named_from_input_to_output() -> None:
    found = layers_of(network(FEWER))
    assert [layer["name"] for layer in found] == LAYERS
    assert [layer["location"] for layer in found] == [3, 3, 4]
    assert [layer["experts"] for layer in found] == [4, 4, 4]
    assert [layer["top_k"] for layer in found] == [2, 2, 2]
    assert [(layer["channels"], layer["hidden"]) for layer in found] == [(64, 128), (64, 128), (128, 256)]
