"""Routers and layers of experts, beside their definition."""

from collections.abc import Mapping, Sequence
from copy import deepcopy

import pytest
import torch
from timm.layers import Mlp
from torch import Tensor
from torch.nn import functional as F

from models.experts import Adapter, MoEMlp, Router, key
from models.mutual_information import mutual_information

DIM = 16
X = torch.randn(2, 5, 3, DIM, generator=torch.Generator().manual_seed(0))
ALL = tuple(range(6))
Routes = Mapping[str, tuple[Sequence[int], int]]
TWO: Routes = {"a": (ALL, 2), "b": (ALL, 3)}


def build(routes: Routes = TWO, *, bias: bool = True, width: int = 1, remembered: Sequence[str] = ()) -> MoEMlp:
    """A layer whose routers differ and decide, as after training."""
    torch.manual_seed(0)
    layer = MoEMlp(DIM, 24, routes, bias=bias, router_width=width, remembered=remembered)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter) / 2)
    return layer


def probs_of(layer: MoEMlp, dataset: str, x: Tensor) -> Tensor:
    weight = layer.router(dataset).weight[: len(layer.numbers[dataset])]
    return (x.reshape(-1, DIM) @ weight.t()).softmax(-1)


def by_expert(layer: MoEMlp, dataset: str, x: Tensor) -> Tensor:
    """Eq. 1 and 2 with every expert run on every token, and the gates of those not chosen set to zero."""
    x_TC, chosen, top_k = x.reshape(-1, DIM), layer.numbers[dataset], layer.router(dataset).top_k
    probs_TE = probs_of(layer, dataset, x)
    kept_TE = probs_TE * (probs_TE >= probs_TE.sort(descending=True).values[:, top_k - 1 : top_k])
    mixed = [kept_TE[:, place, None] * layer.expert(number)(x_TC) for place, number in enumerate(chosen)]
    return torch.stack(mixed).sum(0).view(x.shape)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("dataset", ["a", "b", "c"])
def test_a_layer_is_the_gated_sum_of_the_chosen(bias: bool, width: int, dataset: str) -> None:
    layer = build({**TWO, "c": ((5, 1, 2), 2)}, bias=bias, width=width).eval()
    layer.dataset = dataset
    torch.testing.assert_close(layer(X), by_expert(layer, dataset, X), rtol=1e-4, atol=1e-4)


def test_gates_are_the_greatest_probabilities_as_they_are() -> None:
    router = Router(DIM, 6, 2)
    torch.nn.init.normal_(router.weight)
    gates, choice, probs = router(X.reshape(-1, DIM))
    torch.testing.assert_close(gates.sort(descending=True).values, probs.sort(descending=True).values[:, :2])
    assert torch.equal(gates, probs.gather(1, choice))
    torch.testing.assert_close(probs.sum(1), torch.ones(len(probs)))
    assert (gates.sum(1) < 1).all(), "not renormalised"


def test_a_router_is_in_single_precision_under_autocast() -> None:
    router, x = Router(DIM, 6, 2), X.reshape(-1, DIM)
    expected = router(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = router(x)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    half = Router(DIM, 6, 2).bfloat16()(x.bfloat16())
    assert half[0].dtype == half[2].dtype == torch.float32


@pytest.mark.parametrize(("experts", "top_k"), [(n, k) for n in range(1, 14) for k in range(1, n + 1)])
def test_an_undecided_router_takes_the_first(experts: int, top_k: int) -> None:
    """Torch's own order of equal values is another on every device and for every size."""
    router = Router(DIM, experts, top_k)
    torch.nn.init.zeros_(router.weight)
    gates, choice, _ = router(X.reshape(-1, DIM))
    assert (choice.sort().values == torch.arange(top_k)).all()
    torch.testing.assert_close(gates, torch.full_like(gates, 1 / experts))


def test_noise() -> None:
    """With a second output per expert, in training alone; its scale is learned."""
    x, plain, noisy = X.reshape(-1, DIM), Router(DIM, 6, 2), Router(DIM, 6, 2, width=2)
    assert torch.equal(plain(x)[2], plain.eval()(x)[2])
    assert not torch.equal(noisy(x)[2], noisy(x)[2])
    noisy(x)[0].sum().backward()
    assert noisy.weight.grad is not None
    assert noisy.weight.grad[6:].any()
    expected = F.linear(x, noisy.weight[:6]).softmax(-1)
    assert torch.equal(noisy.eval()(x)[2], noisy(x)[2])
    torch.testing.assert_close(noisy(x)[2], expected)


@pytest.mark.parametrize("top_k", [0, 7])
def test_more_experts_than_there_are(top_k: int) -> None:
    with pytest.raises(
        ValueError, match=f"top_k {top_k}: a router chooses at least 1 and at most all of its 6 experts"
    ):
        Router(DIM, 6, top_k)


def test_single_precision_and_autocast_are_close() -> None:
    layer = build().train()
    expected = layer(X)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(X)
    found.float().sum().backward()
    assert all(weight.grad is not None for weight in layer.experts.parameters())
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05 * expected.abs().max().item())


def test_an_adapter_adds_nothing_at_first() -> None:
    adapter = Adapter(DIM, 4)
    assert torch.equal(adapter(X), X)
    layer = MoEMlp(DIM, 8, TWO, adapter=4)
    assert isinstance(layer.adapter, Adapter)
    torch.nn.init.ones_(layer.adapter.up.bias)
    torch.testing.assert_close(layer.eval()(X), by_expert(layer, "a", X) + 1)


def step(layer: MoEMlp, dataset: str, x: Tensor) -> None:
    layer.dataset = dataset
    layer(x)
    layer.update(layer.tally_ME, 0.9)


def test_estimates_are_exponential_averages() -> None:
    """By hand: two batches of one data set in a step count by their tokens; a step without one leaves its row."""
    layer = build({**TWO, "c": ((1, 4), 1)}, remembered=("old",)).train()
    assert torch.equal(layer.estimates.stacked(), torch.full((4, 6), 1 / 6)), "old, a, b, c"
    expected = torch.full((4, 6), 1 / 6)
    draw = torch.Generator().manual_seed(1)
    for names in (("a",), ("a", "b"), ("c",), ("a", "a", "c"), ("b",)):
        taken: dict[str, list[Tensor]] = {name: [] for name in names}
        for size, name in enumerate(names, 2):
            layer.dataset, x = name, torch.randn(size, 3, DIM, generator=draw)
            layer(x)
            taken[name].append(probs_of(layer, name, x).detach())
        layer.update(layer.tally_ME, 0.9)
        for name, batches in taken.items():
            mean, row = torch.cat(batches).mean(0), ("old", "a", "b", "c").index(name)
            full = torch.zeros(6).index_copy(0, torch.tensor(layer.numbers[name]), mean)
            expected[row] = 0.9 * expected[row] + 0.1 * full
    torch.testing.assert_close(layer.estimates.stacked(), expected)
    assert torch.equal(layer.estimates.stacked()[0], torch.full((6,), 1 / 6)), "a remembered data set keeps its row"
    assert not layer.tally_ME.any()


def test_experts_in_any_order() -> None:
    """A route names experts, its router's rows are in its order: probabilities are counted for the right ones."""
    layer = build({"a": ((2, 0, 1), 1), "b": ((0, 1, 2), 1)}).train()
    step(layer, "a", X)
    mean = probs_of(layer, "a", X).mean(0)
    torch.testing.assert_close(layer.estimates.get_buffer(key("a")), 0.9 / 3 + 0.1 * mean[[1, 2, 0]])


def test_eval_changes_nothing_and_a_penalty_needs_a_training_batch() -> None:
    layer = build().eval()
    before = {name: value.clone() for name, value in layer.named_buffers()}
    layer(X)
    assert all(torch.equal(value, before[name]) for name, value in layer.named_buffers())
    with pytest.raises(AssertionError, match="a penalty follows a training batch"):
        layer.penalty("a")
    layer.train()(X)
    assert layer.penalty("a").isfinite()
    layer.update(layer.tally_ME, 0.9)
    with pytest.raises(AssertionError, match="a penalty follows a training batch"):
        layer.penalty("a")


def test_the_penalty_raises_the_information() -> None:
    """On tokens of one distribution, which give the routers no reason of their own to differ."""
    torch.manual_seed(0)
    layer = MoEMlp(DIM, 4, TWO).train()
    optimiser, reached = torch.optim.SGD(layer.routers.parameters(), lr=20), []
    tokens = torch.randn(256, DIM) + 1
    for turn in range(80):
        dataset = "ab"[turn % 2]
        layer.dataset = dataset
        optimiser.zero_grad()
        layer(tokens)
        layer.penalty(dataset).backward()
        optimiser.step()
        layer.update(layer.tally_ME, 0.8)
        both = torch.stack([probs_of(layer, name, tokens).detach().mean(0) for name in "ab"])
        reached.append(mutual_information(both).item())
    assert reached[0] < 0.02
    assert reached[-1] > 0.5, "of log 2"


def test_copies_and_states() -> None:
    """Names with dots and percent signs, as data sets may have; a copy after a step is apart."""
    routes: Routes = {"im.net-1%": (ALL, 2), "im%2Enet-1%": (ALL, 2), "a": ((0, 3), 1)}
    layer = build(routes).train()
    for name in routes:
        step(layer, name, X)
    twin, again = deepcopy(layer), MoEMlp(DIM, 24, routes)
    again.load_state_dict(layer.state_dict())
    for name in routes:
        for other in (twin, again):
            other.dataset = layer.dataset = name
            assert torch.equal(other.eval()(X), layer.eval()(X))
    assert torch.equal(again.estimates.stacked(), layer.estimates.stacked())
    step(twin.train(), "a", X)
    assert not torch.equal(twin.estimates.stacked(), layer.estimates.stacked())
    assert "tally_ME" not in layer.state_dict()


def test_a_data_set_remembered_and_trained_has_one_row() -> None:
    layer = build(remembered=("a", "old"))
    assert layer.estimates.names == ("a", "old", "b")
    assert layer.estimates.stacked().shape == (3, 6)


def test_experts_are_timms_mlps() -> None:
    layer = build({"a": ((1, 4), 1)})
    assert list(layer.experts) == ["1", "4"]
    assert isinstance(layer.expert(4), Mlp)
    assert layer.expert(4) is layer.experts["4"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # dynamo's own look at what leaves a graph
def test_compiled() -> None:
    """Outputs, gradients and counts stay, for one data set after another."""
    layer, twin = build().train(), build().train()
    compiled = torch.compile(twin, backend="aot_eager")
    for dataset in "aba":
        layer.dataset = twin.dataset = dataset
        for way, other in ((layer, layer), (compiled, twin)):
            (way(X).square().mean() + other.penalty(dataset)).backward()
        torch.testing.assert_close(twin(X), layer(X))
    for one, other in zip(layer.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad)
    torch.testing.assert_close(twin.tally_ME, layer.tally_ME)
