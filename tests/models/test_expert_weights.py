"""Weights for a layer of experts from an MLP, or from another layer."""

from collections.abc import Mapping, Sequence

import pytest
import torch
from timm.layers import Mlp
from torch import Tensor

from models.expert_weights import take_experts, upcycle
from models.experts import MoEMlp, key

DIM, HIDDEN = 8, 24
X = torch.randn(20, DIM, generator=torch.Generator().manual_seed(0))
Routes = Mapping[str, tuple[Sequence[int], int]]


def build(routes: Routes, *, hidden: int = 6, width: int = 1, remembered: Sequence[str] = (), seed: int = 0) -> MoEMlp:
    """A layer whose weights are all different, estimates too."""
    torch.manual_seed(seed)
    layer = MoEMlp(DIM, hidden, routes, router_width=width, remembered=remembered)
    with torch.no_grad():
        for value in layer.state_dict().values():
            value.copy_(torch.rand_like(value))
        for name in layer.estimates.names:
            row = layer.estimates.get_buffer(key(name))
            row /= row.sum()
    return layer


def output(layer: MoEMlp, dataset: str) -> Tensor:
    layer.dataset = dataset
    return layer.eval()(X)


@pytest.mark.parametrize(
    ("experts", "top_k", "hidden"),
    [(1, 1, 24), (4, 4, 6), (5, 4, 6), (6, 4, 6), (12, 4, 6), (5, 2, 12), (12, 2, 12), (6, 4, 12), (12, 6, 4)],
)
@pytest.mark.parametrize("bias", [True, False])
def test_an_upcycled_layer_is_its_mlp(experts: int, top_k: int, hidden: int, bias: bool) -> None:
    """Whatever the number of experts, as long as the first K are whole copies."""
    torch.manual_seed(0)
    mlp = Mlp(DIM, HIDDEN, bias=bias)
    layer = MoEMlp(DIM, hidden, {"a": (range(experts), top_k), "b": (range(experts), top_k)}, bias=bias)
    upcycle(layer, mlp.state_dict())
    for dataset in "ab":
        torch.testing.assert_close(output(layer, dataset), mlp(X), rtol=1e-5, atol=1e-6)


def test_what_can_not_be_upcycled() -> None:
    layer = build({"a": (range(4), 2)}, hidden=7)
    with pytest.raises(
        ValueError,
        match="experts of 7 hidden channels are no slices of an MLP of 24, or lack its biases; use hidden: 0",
    ):
        upcycle(layer, Mlp(DIM, HIDDEN).state_dict())
    with pytest.raises(ValueError, match="or lack its biases; use hidden: 0 and expert_bias: true"):
        upcycle(build({"a": (range(4), 2)}), Mlp(DIM, HIDDEN, bias=False).state_dict())


@pytest.mark.parametrize("width", [1, 2])
def test_the_same_layer_again(width: int) -> None:
    routes: Routes = {"a": ((0, 1, 2, 3), 2), "b.1": ((0, 1, 2, 3), 3)}
    one, other = build(routes, width=width), build(routes, width=width, seed=1)
    take_experts(other, one.state_dict(), {})
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-6, atol=0)


@pytest.mark.parametrize("width", [1, 2])
def test_what_is_pruned_predicts_as_if_only_the_rest_were_there(width: int) -> None:
    """The softmax is over what is left, and so are the estimates."""
    whole = build({"a": (range(6), 3), "b": (range(6), 3)}, width=width)
    left = (1, 3, 4, 5)
    pruned = build({"a": (left, 2)}, width=width, remembered=("b",), seed=1)
    take_experts(pruned, whole.state_dict(), {})
    scores_TE = X @ whole.router("a").weight[list(left)].t()
    gates_TK, places_TK = scores_TE.softmax(-1).topk(2)
    for token in range(len(X)):
        expected = sum(
            gate * whole.expert(left[place])(X[token])
            for gate, place in zip(gates_TK[token], places_TK[token].tolist(), strict=True)
        )
        torch.testing.assert_close(output(pruned, "a")[token], expected)
    for dataset in "ab":
        row = whole.estimates.get_buffer(key(dataset))[list(left)]
        torch.testing.assert_close(pruned.estimates.get_buffer(key(dataset)), row / row.sum())


def test_what_the_other_lacks_stays() -> None:
    """A new data set and an expert of its own beside what was there; a router that may now choose it keeps its rows."""
    other = build({"a": (range(3), 2)})
    layer = build({"a": ((0, 1, 2, 7), 2), "new": ((0, 1, 2, 7), 2)}, seed=1)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    take_experts(layer, other.state_dict(), {})
    assert torch.equal(layer.router("a").weight[:3], other.router("a").weight)
    assert torch.equal(layer.router("a").weight[3], before[f"routers.{key('a')}.weight"][3])
    assert torch.equal(layer.router("new").weight, before[f"routers.{key('new')}.weight"])
    assert torch.equal(layer.expert(7).fc1.weight, before["experts.7.fc1.weight"])
    torch.testing.assert_close(layer.estimates.get_buffer(key("a"))[:3], other.estimates.get_buffer(key("a")))
    assert layer.estimates.get_buffer(key("a"))[3] == 0


def test_routers_that_do_not_have_all_experts() -> None:
    """Their rows come by the experts that their routes name; without the routes they can't be told apart."""
    routes = {"a": (5, 0, 2), "b": (0, 2, 5, 7)}
    other = build({name: (numbers, 2) for name, numbers in routes.items()})
    layer = build({"a": ((0, 5), 1)}, seed=1)
    take_experts(layer, other.state_dict(), routes)
    assert torch.equal(layer.router("a").weight, other.router("a").weight[[1, 0]])
    with pytest.raises(ValueError, match="the router of data set a to start from is not for all experts"):
        take_experts(layer, other.state_dict(), {})


def test_another_router_width() -> None:
    with pytest.raises(ValueError, match="or of another router_width"):
        take_experts(build({"a": (range(4), 2)}), build({"a": (range(4), 2)}, width=2).state_dict(), {})
