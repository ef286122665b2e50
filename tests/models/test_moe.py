"""The network with experts: one backbone, per data set routers and heads, and what may and may not touch what."""

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models import bundle, sharing
from models.accounting import count_flops
from models.experts import MoEMlp, Router
from models.sharing import moe
from models.sharing.branched import BranchedModel
from models.sharing.moe import MoeModel
from models.spec import BackboneSpec, ModelSpec, Route, Setting, TaskSpec
from tests.models.task_cases import spec as task_spec

SIZE = (32, 32)
NANO, VIT = "swin_nano_patch4_window4", "test_vit"
IMAGES = torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(0))
EVERY: dict[str, Setting] = {"experts": 6, "top_k": 2, "placement": "text"}
LAYERS = 5  # of the small Swin


def task(name: str, dataset: str) -> TaskSpec:
    return task_spec("classification", name=name, dataset=dataset)


TASKS = (task("one", "a"), task("two", "b.1"), task("three", "a"))


def spec(
    tasks: Sequence[TaskSpec] = TASKS, backbone: str = NANO, routes: tuple[Route, ...] = (), **settings: Setting
) -> ModelSpec:
    return ModelSpec(
        strategy="moe",
        backbone=BackboneSpec(name=backbone, locations=4, size=SIZE),
        tasks=tuple(tasks),
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
        settings=tuple(sorted((EVERY | settings).items())),
        routes=routes,
    )


def build(*args: Any, **settings: Any) -> MoeModel:
    torch.manual_seed(0)
    return MoeModel(spec(*args, **settings))


def shaken(model: MoeModel) -> MoeModel:
    """Routers that differ and decide, and estimates, as after training."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in model.layers.values():
            for weight in layer.routers.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator))
            for row in layer.estimates.buffers():
                row.copy_(torch.rand(row.shape, generator=generator))
                row /= row.sum()
    return model


def predictions(model: nn.Module) -> dict[str, Tensor]:
    with torch.no_grad():
        return model.eval()(IMAGES.to(next(model.parameters()).dtype))


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in (*model.named_parameters(), *model.named_buffers())}


def objective(model: MoeModel, outputs: Mapping[str, Tensor], lam: float = 0.1) -> Tensor:
    return torch.stack([out.square().mean() for out in outputs.values()]).sum() + lam * model.penalty(tuple(outputs))


def step(model: MoeModel, names: Sequence[str], optimiser: torch.optim.Optimizer | None = None) -> None:
    model.train().zero_grad()
    objective(model, model(IMAGES, names)).backward()
    if optimiser is not None:
        optimiser.step()
    model.finish_step()


def branched(tasks: Sequence[TaskSpec] = TASKS, backbone: str = NANO) -> BranchedModel:
    torch.manual_seed(3)
    dense = replace(spec(tasks, backbone), strategy="branched", groups=((0,) * len(tasks),) * 4, settings=())
    return BranchedModel(dense).eval()


def test_public_names() -> None:
    assert sharing.SHARING["moe"] is MoeModel
    assert moe.MoEMlp is MoEMlp
    assert moe.Router is Router
    assert callable(moe.mutual_information_loss)


@pytest.mark.parametrize(
    ("backbone", "experts", "top_k"),
    [
        *((name, *numbers) for name in (NANO, VIT) for numbers in ((4, 4), (8, 4), (6, 4), (5, 2), (1, 1))),
        ("davit_tiny", 6, 4),
    ],
)
def test_upcycled_it_is_the_dense_network(backbone: str, experts: int, top_k: int) -> None:
    """Also where there are more experts than a token gets, and on every data set."""
    source = branched(backbone=backbone)
    model = build(TASKS, backbone, experts=experts, top_k=top_k, upcycled=True)
    model.start_from({"dense": source.state_dict()})
    model.heads.load_state_dict(source.heads.state_dict())
    expected = predictions(source.double())
    for name, found in predictions(model.double()).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-6, atol=1e-6)


def test_upcycled_from_what_timm_gives() -> None:
    """Without another network to start from, experts are slices of the backbone's own first weights."""
    torch.manual_seed(0)
    dense = MoeModel(spec(placement=()))
    model = build(upcycled=True)
    model.heads.load_state_dict(dense.heads.state_dict())
    expected = predictions(dense)
    for name, found in predictions(model).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-6, atol=1e-6)


def test_start_from_another() -> None:
    """`moe` takes the backbone, experts, routers and estimates; `network` the first tasks' heads too."""
    source = shaken(build())
    for kind in ("moe", "network"):
        model = build((*TASKS, task("four", "c")))
        heads = deepcopy(model.heads.state_dict())
        model.start_from({kind: source.state_dict()})
        for name, value in source.state_dict().items():
            if name.startswith("blocks.") and ".estimates." not in name:
                assert torch.equal(model.state_dict()[name], value), name
            elif ".estimates." in name:
                torch.testing.assert_close(model.state_dict()[name], value)
        taken = source.heads.state_dict() if kind == "network" else {}
        assert same(model.heads.state_dict(), heads | taken)


def test_start_from_dense() -> None:
    """What is no expert comes from the network of one branch; experts stay where this one is not upcycled."""
    source, model = branched(TASKS[:1]), build()
    before = copies(model)
    model.start_from({"dense": source.state_dict()})
    inside = tuple(f"{path}." for path, layer in model.named_modules() if isinstance(layer, MoEMlp))
    for name, value in model.blocks.state_dict(prefix="blocks.").items():
        location, _, path = name.removeprefix("blocks.").partition(".")
        expected = before[name] if name.startswith(inside) else source.state_dict()[f"blocks.{location}.0.{path}"]
        assert torch.equal(value, expected), name


def test_another_backbone() -> None:
    with pytest.raises(ValueError, match="the network to start from has another backbone, or other experts: "):
        build().start_from({"moe": build(TASKS, VIT).state_dict()})
    with pytest.raises(ValueError, match="the network to start from has another backbone, or other experts: "):
        build(placement=()).start_from({"moe": build().state_dict()})


@pytest.mark.parametrize("unequal", [False, True])
def test_only_one_task(unequal: bool) -> None:
    """To the bit, with its own data set's router and experts, and no other's."""
    routes = (
        Route(dataset="a", top_k=2, experts=((0, 4, 2),) * LAYERS),
        Route(dataset="b.1", top_k=3, experts=((0, 1, 2, 3, 9),) * LAYERS, own=((9,),) * LAYERS),
    )
    model = shaken(build(TASKS, routes=routes if unequal else ()))
    expected = predictions(model)
    for name, dataset in (("one", "a"), ("two", "b.1"), ("three", "a")):
        alone = model.only(name)
        assert alone.training == model.training
        assert same(predictions(alone), {name: expected[name]})
        assert alone.datasets == (dataset,)
        for layer, whole in zip(alone.layers.values(), model.layers.values(), strict=True):
            assert layer.numbers == {dataset: whole.numbers[dataset]}
            assert set(map(int, layer.names)) == set(whole.numbers[dataset])
        assert alone.num_params() < model.num_params()
        assert same(predictions(alone.only(name)), {name: expected[name]})


def test_a_bundle(tmp_path: Path) -> None:
    model = shaken(build())
    expected = {name: model.tasks[name].predict(out) for name, out in predictions(model).items()}
    bundle.save(model, tmp_path)
    network = bundle.load_network(tmp_path)
    assert network.spec == model.spec
    assert same(network.state_dict(), model.state_dict())
    assert same(bundle.load(tmp_path)(IMAGES), expected)
    assert same(bundle.load(tmp_path).only("two")(IMAGES), {"two": expected["two"]})


def test_a_task_touches_no_other_data_sets_router_or_head() -> None:
    model = shaken(build())
    step(model, ("two",))
    untouched = {name for name, weight in model.named_parameters() if weight.grad is None}
    routers = {f"{path}.routers.on_a.weight" for path, m in model.named_modules() if isinstance(m, MoEMlp)}
    heads = {name for name, _ in model.named_parameters() if name.startswith(("heads.0.", "heads.2."))}
    assert untouched == routers | heads
    step(model, ("one", "three"))
    touched = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert routers | heads <= touched
    assert not {name for name in touched if ".on_b" in name or name.startswith("heads.1.")}


@pytest.mark.parametrize("adapter", [0, 4])
def test_learning_only_its_own(adapter: int) -> None:
    """Routers, own experts, adapters and heads; all else keeps its bytes through steps with weight decay."""
    route = Route(dataset="c", top_k=2, experts=((0, 3, 5, 6),) * LAYERS, own=((6,),) * LAYERS)
    model = build((task("new", "c"),), routes=(route,), learns="own", adapter=adapter, remembered=("a", "b.1"))
    model.start_from({"moe": shaken(build()).state_dict()})
    assert all(layer.estimates.names == ("a", "b.1", "c") for layer in model.layers.values())
    own = (".routers.", ".experts.6.", ".adapter.", "heads.")
    learning = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert learning == {name for name, _ in model.named_parameters() if any(part in f".{name}" for part in own)}
    assert model.trained_params() == sum(
        weight.numel() for name, weight in model.named_parameters() if name in learning and "heads." not in name
    )
    before = copies(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    for _ in range(3):
        step(model, ("new",), optimiser)
    for name, value in copies(model).items():
        moves = name in learning or name.endswith("estimates.on_c")
        assert torch.equal(value.view(torch.uint8), before[name].view(torch.uint8)) != moves, name


def test_pruned_it_predicts_as_if_only_those_experts_were_there() -> None:
    """The whole network, the other experts out of its routers' reach, is the oracle."""
    left = (1, 2, 5)
    whole = shaken(build(TASKS[:1]))
    pruned = build(TASKS[:1], routes=(Route(dataset="a", top_k=2, experts=(left,) * LAYERS),))
    pruned.start_from({"network": whole.state_dict()})
    away = torch.tensor([number not in left for number in range(6)])

    def reach(router: nn.Module, given: tuple[Tensor], _: object) -> tuple[Tensor, Tensor, Tensor]:
        assert isinstance(router, Router)
        probs = (given[0] @ router.weight.t()).masked_fill(away, float("-inf")).softmax(-1)
        gates, choice = probs.topk(2)
        return gates, choice, probs

    for layer in whole.layers.values():
        layer.router("a").register_forward_hook(reach)
        for row in pruned.layers.values():
            assert row.estimates.stacked().sum().item() == pytest.approx(1)
    torch.testing.assert_close(predictions(pruned)["one"], predictions(whole)["one"], rtol=1e-5, atol=1e-6)


def test_what_runs_how_often() -> None:
    """Before the first experts once for all, then once for every data set; tasks of one data set share the run."""
    model = build(placement=("layers.2.*", "layers.3.*")).eval()
    calls: Counter[int] = Counter()
    for location, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, location=location: calls.update([location]))
    for names, runs in ((None, 2), (("one", "three"), 1), (("two",), 1)):
        calls.clear()
        found = model(IMAGES, names)
        assert list(found) == list(names or ("one", "two", "three"))
        assert calls == {0: 1, 1: 1, 2: runs, 3: runs}


def test_without_experts_it_is_a_plain_network() -> None:
    model = build(placement=())
    assert model.layers == {}
    source = branched()
    model.start_from({"dense": source.state_dict()})
    model.heads.load_state_dict(source.heads.state_dict())
    assert same(predictions(model), predictions(source))
    model.train()
    assert model.penalty(("one",)).item() == 0
    model.finish_step()


def test_the_penalty_is_the_layers_mean_and_needs_a_training_batch() -> None:
    model = shaken(build())
    with pytest.raises(AssertionError, match="a penalty follows a training batch"):
        model.penalty(("one",))
    model.train()(IMAGES, ("one", "three"))
    parts = [layer.penalty("a").item() for layer in model.layers.values()]
    assert model.penalty(("one", "three")).item() == pytest.approx(sum(parts) / LAYERS)
    model.finish_step()
    with pytest.raises(AssertionError, match="a penalty follows a training batch"):
        model.penalty(("one",))


def test_prediction_changes_nothing() -> None:
    model = shaken(build()).eval()
    before = copies(model)
    predictions(model)
    assert same(copies(model), before)


@pytest.mark.parametrize("backbone", [NANO, VIT])
def test_states_and_copies(backbone: str) -> None:
    model = build(TASKS, backbone)
    step(model, ("one",), torch.optim.SGD(model.parameters(), lr=0.1))
    again = MoeModel(model.spec)
    again.load_state_dict(model.state_dict())
    twin = deepcopy(model)
    expected = predictions(model)
    assert same(predictions(again), expected)
    assert same(predictions(twin), expected)
    step(twin, ("one",), torch.optim.SGD(twin.parameters(), lr=0.1))
    assert same(predictions(model), expected), "a copy is apart"
    assert same(copies(model), copies(again))


def test_averaged_weights() -> None:
    """Weights and estimates are averaged, a step's counts are not carried along."""
    model = build()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    average.update_parameters(model)
    before, optimiser = copies(model), torch.optim.SGD(model.parameters(), lr=0.1)
    step(model, ("one",), optimiser)
    average.update_parameters(model)
    after, found = copies(model), copies(average.module)
    for name, value in found.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (before[name] + after[name]) / 2)
    assert not any(value.any() for name, value in found.items() if name.endswith("tally_ME"))
    assert isinstance(average.module, MoeModel)
    assert predictions(average.module).keys() == set(model.spec.task_names)


def test_flops_follow_the_choice() -> None:
    """The same for any K at a constant K x hidden, routers aside, and linear in K at a constant hidden."""

    def of_experts(**settings: Setting) -> float:
        model = build(TASKS[:1], **settings)
        tokens = [64, 16, 4, 4, 1]  # of 8 x 8 patches, halved twice before stages of 1, 1, 2 and 1 layers
        widths = [layer.router("a").weight.shape[1] for layer in model.layers.values()]
        routers = sum(t * c for t, c in zip(tokens, widths, strict=True)) * model.settings.experts * 2
        return count_flops(model, IMAGES[:1]) - routers

    dense = count_flops(build(TASKS[:1], placement=()), IMAGES[:1])
    assert [of_experts(experts=6, top_k=top_k) for top_k in (1, 2, 4)] == [dense] * 3
    one, two, three, six = (of_experts(experts=6, top_k=top_k, hidden=8) for top_k in (1, 2, 3, 6))
    assert two - one == three - two == (six - two) / 4 > 0
    assert of_experts(experts=12, hidden=8) == two


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    """Autocast in 16 bits stays close, a network in 64 bits trains."""
    model = shaken(build())
    expected = predictions(model)
    if dtype == torch.bfloat16:
        with torch.autocast("cpu", dtype):
            found = predictions(model)
            outputs = model.train()(IMAGES, ("one",))
        objective(model, {name: out.float() for name, out in outputs.items()}).backward()
        model.finish_step()
    else:
        found = predictions(model.double())
        outputs = model.train()(IMAGES.double(), ("one",))
        objective(model, outputs).backward()
        model.finish_step()
    tolerance = 0.1 if dtype == torch.bfloat16 else 1e-4
    for name, value in expected.items():
        gap = (found[name].float() - value).abs().max()
        assert gap <= tolerance * value.abs().max()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())


def test_what_experts_can_not_replace() -> None:
    with pytest.raises(ValueError, match="experts have GELU and no normalisation, its MLPs have QuickGELU"):
        build(TASKS[:1], "vit_base_patch32_clip_quickgelu_224")
    with pytest.raises(ValueError, match="placement 'text': no MLP of test_resnet matches; its MLPs: none"):
        build(TASKS[:1], "test_resnet")
    with pytest.raises(ValueError, match="MoE has no setting speed; it has experts, top_k, hidden"):
        build(speed=3)
    with pytest.raises(ValueError, match="top_k 7: a router chooses at least 1 and at most all of its 6 experts"):
        build(top_k=7, hidden=4)


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    wait = timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=wait)
    torch.save(_train_ranks(rank, 2), f"{folder}/{rank}")
    dist.destroy_process_group()


def _train_ranks(rank: int, world: int) -> dict[str, Tensor]:
    """Weights, estimates and the last step's gradients after steps on one data set and the other."""
    model = shaken(build()).train()
    forward: nn.Module = model
    if world > 1:
        forward = nn.parallel.DistributedDataParallel(model, find_unused_parameters=True, broadcast_buffers=False)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    images = torch.rand(4, 8, 3, *SIZE, generator=torch.Generator().manual_seed(5))
    for turn, batch in enumerate(images):
        optimiser.zero_grad()
        outputs = forward(batch[rank::world], (("one", "three"), ("two",))[turn % 2])
        objective(model, outputs, lam=5.0).backward()
        optimiser.step()
        model.finish_step()
    grads = {f"grad {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {**model.state_dict(), **grads}


@pytest.mark.slow
def test_two_ranks_are_one(tmp_path: Path) -> None:
    """Each with half of every batch: estimates, router gradients and all else are those of the whole."""
    torch.multiprocessing.spawn(_rank, args=(str(tmp_path),), nprocs=2)
    one, two, other = _train_ranks(0, 1), torch.load(tmp_path / "0"), torch.load(tmp_path / "1")
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(two[name], other[name]), name
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")
