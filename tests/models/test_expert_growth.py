"""Networks that each learned a data set beside one base come together, and nobody's predictions change by a bit."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from torch import Tensor

from models.expert_growth import added_datasets, grow, growth_of, join, without
from models.experts import key
from models.sharing import SharedModel
from models.sharing.moe import MoeModel
from models.spec import BackboneSpec, ModelSpec, Route, Setting, TaskSpec
from tests.models.task_cases import spec as task_spec

SIZE = (32, 32)
EXPERTS, LAYERS = 4, 5
IMAGES = torch.randint(0, 256, (2, 3, *SIZE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
TASKS = {
    "a": (task_spec("classification", name="a class", dataset="a"),),
    "b": (task_spec("depth", name="b depth", dataset="b", head_width=8),),
    "c": (task_spec("classification", name="c class", dataset="c"),),
    "d.1": (
        task_spec("classification", name="d class", dataset="d.1"),
        task_spec("segmentation", name="d mask", dataset="d.1", head_width=8),
    ),
    "e": (task_spec("attributes", name="e flags", dataset="e"),),
}
# What a data set may choose from in each layer, and what of it is its own; the base's experts are 0 to 3.
WAYS: dict[str, tuple[int, Sequence[tuple[int, ...]], Sequence[tuple[int, ...]]]] = {
    "router": (2, [(0, 1, 2, 3)] * LAYERS, ()),
    "tuned": (2, [(0, 1, 2, 3)] * LAYERS, [(1,), (0,), (3,), (1, 2), ()]),
    "added": (2, [(0, 1, 2, 3, 4)] * LAYERS, [(4,)] * LAYERS),
    "both": (3, [(0, 1, 2, 3, 4, 5)] * LAYERS, [(5, 2, 4), (4, 5), (0, 4, 5), (4, 5, 1), (5, 4)]),
    "pruned": (1, [(0, 2), (1, 3), (3,), (2, 1), (0, 1, 2)], [()] * LAYERS),
    "pruned and tuned": (1, [(0, 2), (9, 3), (3,), (2, 1), (0, 1, 2)], [(2,), (9,), (), (1,), (0, 1, 2)]),
    "all its own": (2, [(7, 8)] * LAYERS, [(7, 8)] * LAYERS),
}
PAIRS = [("tuned", "tuned"), ("added", "both"), ("router", "all its own"), ("pruned and tuned", "added")]


def spec(tasks: tuple[TaskSpec, ...], routes: tuple[Route, ...] = (), **settings: Setting) -> ModelSpec:
    settings = {"placement": "text", "experts": EXPERTS, "top_k": 2} | settings
    return ModelSpec(
        strategy="moe",
        backbone=BackboneSpec(name="swin_nano_patch4_window4", locations=4, size=SIZE),
        tasks=tasks,
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
        settings=tuple(sorted(settings.items())),
        routes=routes,
    )


def shaken(model: MoeModel) -> MoeModel:
    """As after training: what learns is elsewhere, and so are the estimates of the network's own data sets."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
                assert parameter.isfinite().all(), name
        for layer in model.layers.values():
            for dataset in model.datasets:
                row = layer.estimates.get_buffer(key(dataset))
                row.copy_(torch.rand_like(row).softmax(0))
    return model.eval()


def build_base(seed: int = 0) -> MoeModel:
    torch.manual_seed(seed)
    return shaken(MoeModel(spec((*TASKS["a"], *TASKS["b"]))))


def learn(base: MoeModel, dataset: str, way: str, **settings: Setting) -> MoeModel:
    """A network that learned a data set beside a base in one of the ways."""
    top_k, experts, own = WAYS[way]
    route = Route(dataset=dataset, top_k=top_k, experts=tuple(experts), own=tuple(own))
    settings = {"learns": "own", "remembered": ("a", "b")} | settings
    torch.manual_seed(len(dataset + way))
    model = MoeModel(spec(TASKS[dataset], (route,), **settings))
    model.start_from({"moe": base.state_dict()})
    return shaken(model)


def outputs(model: SharedModel, images: Tensor = IMAGES) -> dict[str, Tensor]:
    with torch.no_grad():
        return model(images)


def agree(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("way", WAYS)
def test_what_joins_predicts_as_before_to_the_bit(way: str) -> None:
    base = build_base()
    grown = learn(base, "c", way)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    joined = join(base, [grown])
    assert joined.spec.task_names == ("a class", "b depth", "c class")
    assert agree(outputs(joined), outputs(base) | outputs(grown))
    assert agree(before, base.state_dict()), "the base stays as it is"
    assert joined.routes["a"] == base.routes["a"]
    own = joined.routes["c"].own
    assert [len(row) for row in own] == [len(row) for row in grown.routes["c"].own or [()] * LAYERS]
    with torch.no_grad():
        for parameter in joined.parameters():
            parameter.zero_()
    assert agree(before, base.state_dict()), "it shares no memory"


@pytest.mark.parametrize("ways", PAIRS)
def test_the_order_of_joining_does_not_matter(ways: tuple[str, str]) -> None:
    base = build_base()
    grown = [learn(base, "c", ways[0]), learn(base, "d.1", ways[1]), learn(base, "e", "added")]
    expected = outputs(base) | outputs(grown[0]) | outputs(grown[1]) | outputs(grown[2])
    for order in permutations(grown):
        joined = join(base, order)
        assert agree(outputs(joined), expected)
        for place in range(LAYERS):
            new = [number for name in ("c", "d.1", "e") for number in joined.routes[name].own[place]]
            assert sorted(new) == list(range(EXPERTS, EXPERTS + len(new))), "each its own, in a row"
    one_by_one = join(join(join(base, grown[:1]), grown[1:2]), grown[2:])
    assert agree(one_by_one.state_dict(), join(base, grown).state_dict())
    assert one_by_one.spec == join(base, grown).spec


@pytest.mark.parametrize("ways", PAIRS)
def test_what_is_cut_out_of_a_joined_network_is_what_joined_it(ways: tuple[str, str]) -> None:
    base = build_base()
    grown = [learn(base, dataset, way) for dataset, way in zip(("c", "d.1"), ways, strict=True)]
    joined = join(base, grown)
    for network in (base, *grown):
        for task in network.spec.tasks:
            alone = joined.only(task.name)
            assert agree(outputs(alone), {task.name: outputs(network)[task.name]})
            assert alone.num_params() == network.only(task.name).num_params()
            if len(network.spec.tasks) == 1:
                assert alone.num_params() == network.num_params()


def test_a_joined_network_holds_the_base_once() -> None:
    base = build_base()
    grown = [learn(base, "c", "added"), learn(base, "d.1", "tuned")]
    joined = join(base, grown)
    own = sum(p.numel() for network in grown for p in network.parameters() if p.requires_grad)
    assert joined.num_params() == base.num_params() + own


def test_estimates_are_filled_up_and_nothing_is_lost() -> None:
    base = build_base()
    grown = learn(base, "c", "both")
    joined = join(base, [learn(base, "e", "added"), grown])
    for place, (layer, old, new) in enumerate(
        zip(joined.layers.values(), base.layers.values(), grown.layers.values(), strict=True)
    ):
        assert layer.estimates.names == ("a", "b", "e", "c")
        for name in ("a", "b"):
            row = layer.estimates.get_buffer(key(name))
            assert torch.equal(row[:EXPERTS], old.estimates.get_buffer(key(name)))
            assert row[EXPERTS:].abs().sum() == 0
        row, theirs = layer.estimates.get_buffer(key("c")), new.estimates.get_buffer(key("c"))
        for here, there in zip(joined.routes["c"].experts[place], grown.routes["c"].experts[place], strict=True):
            assert row[layer.names.index(str(here))] == theirs[new.names.index(str(there))]
        assert (row != 0).sum() == len(new.names)


@pytest.mark.parametrize("ways", PAIRS)
def test_a_joined_network_comes_apart_again(ways: tuple[str, str]) -> None:
    base = build_base()
    grown = {"d.1": learn(base, "d.1", ways[0]), "c": learn(base, "c", ways[1])}
    joined = join(base, list(grown.values()))
    assert added_datasets(joined.spec) == ("d.1", "c")
    rest = without(joined, ("c", "d.1"))
    assert rest.spec == base.spec
    assert agree(rest.state_dict(), base.state_dict())
    for name, network in grown.items():
        assert agree(dict(growth_of(joined, name).tensors), dict(growth_of(network, name).tensors))
    again = grow(rest, [growth_of(joined, name) for name in grown])
    assert agree(again.state_dict(), joined.state_dict())
    left = without(joined, ("d.1",))
    assert agree(outputs(left), outputs(base) | outputs(grown["c"]))


@pytest.mark.parametrize("way", ["router", "tuned", "added"])
def test_a_network_that_really_learned_can_join(way: str) -> None:
    """Weight decay, the penalty and the estimates of a training step leave the base's bytes alone."""
    base = build_base()
    grown = learn(base, "c", way).train()
    optimiser = torch.optim.AdamW([p for p in grown.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        (grown(IMAGES)["c class"].square().sum() + grown.penalty(("c class",))).backward()
        optimiser.step()
        grown.finish_step()
    joined = join(base, [grown.eval()])
    assert agree(outputs(joined), outputs(base) | outputs(grown))


def test_only_a_network_with_others_has_added_data_sets() -> None:
    base = build_base()
    assert added_datasets(base.spec) == ()
    assert added_datasets(learn(base, "c", "both").spec) == ()
    joined = join(base, [learn(base, "c", "router")])
    assert added_datasets(joined.spec) == ("c",), "also where it brought a router alone"
    assert added_datasets(joined.only("c class").spec) == ()


def tampered(model: MoeModel, *parts: str) -> MoeModel:
    """The first tensor whose name has these parts, changed by one bit in one number."""
    name = next(name for name in model.state_dict() if all(part in name for part in parts))
    model.state_dict()[name].view(-1).view(torch.int32)[0] ^= 1
    return model


def colder(model: MoeModel) -> MoeModel:
    model.spec = replace(model.spec, mean=(0.0, 0.0, 0.0))
    return model


def rerouted(model: MoeModel, dataset: str, experts: int) -> MoeModel:
    """A network for a data set that may use this expert of a base too."""
    route = Route(dataset=dataset, top_k=1, experts=((0, experts),) * LAYERS)
    network = MoeModel(spec(TASKS[dataset], (route,)))
    network.start_from({"moe": model.state_dict()})
    return network


REFUSALS: dict[str, tuple[Callable[[MoeModel], list[MoeModel]], str]] = {
    "one bit of the backbone": (
        lambda base: [tampered(learn(base, "c", "tuned"), "attn.qkv.weight")],
        r"c class: blocks.0.*attn.qkv.weight is not the base's, nor c's own",
    ),
    "one bit of a shared expert": (
        lambda base: [learn(base, "c", "tuned"), tampered(learn(base, "e", "tuned"), "experts.2.fc1.bias")],
        r"e flags: blocks.*experts.2.fc1.bias is not the base's, nor e's own",
    ),
    "fine-tuned": (
        lambda base: [learn(base, "c", "router", learns="all")],
        r"c class: blocks.0.*only a network that learned a router and experts of its own \(learns: own\) can join",
    ),
    "pruned and fine-tuned": (
        lambda base: [learn(base, "c", "pruned", learns="all")],
        r"c class: blocks.0.*is not the base's",
    ),
    "adapters": (lambda base: [learn(base, "c", "router", adapter=4)], "c class: a network with adapters can't join"),
    "two data sets": (lambda _: [build_base()], "a class, b depth: what joins a base has learned one data set, not a"),
    "a data set of the base": (lambda base: [base.only("a class")], "there is a task 'a class' already"),
    "the same twice": (
        lambda base: [learn(base, "c", "router"), learn(base, "c", "added")],
        "there is a task 'c class' already",
    ),
    "another normalisation": (
        lambda base: [colder(learn(base, "c", "router"))],
        r"c class: made for a network with mean \(0.0, 0.0, 0.0\), not \(0.4, 0.5, 0.6\)",
    ),
    "an expert that nobody has": (
        lambda base: [tampered(learn(base, "c", "added"), "experts.4"), rerouted(base, "e", 8)],
        r"e flags: blocks.*experts.8.fc1.weight is not the base's, nor e's own",
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_what_is_not_the_base_and_a_growth_is_refused(refusal: str) -> None:
    networks, message = REFUSALS[refusal]
    base = build_base()
    with pytest.raises(ValueError, match=message):
        join(base, networks(base))


def test_an_expert_of_another_data_set_s_own_is_refused() -> None:
    joined = join(build_base(), [learn(build_base(), "c", "added")])
    message = r"data set 'e': experts \[4\] of .*mlp are neither its own nor shared by the base"
    route = Route(dataset="e", top_k=1, experts=((0, 4),) * LAYERS, own=((),) * LAYERS)
    growth = growth_of(MoeModel(spec(TASKS["e"], (route,))), "e")
    with pytest.raises(ValueError, match=message):
        grow(joined, [growth])


def test_a_network_without_experts_does_not_grow() -> None:
    dense = MoeModel(spec(TASKS["a"], placement=()))
    other = MoeModel(spec(TASKS["c"], placement=()))
    other.blocks.load_state_dict(dense.blocks.state_dict())
    with pytest.raises(ValueError, match="a network is grown by experts, in each layer that has them"):
        join(dense, [other])


def test_a_growth_of_other_experts_is_refused() -> None:
    base = build_base()
    wide = learn(build_base(), "c", "all its own", hidden=64)
    with pytest.raises(ValueError, match=r"data set 'c': unlike: layers.0.own.0.fc1.bias is float32 \[64\], not"):
        join(base, [wide])
