"""TAPS: a closed gate is the base to the bit, tasks never touch one another, and what a task merges into is plain."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from torch.utils._python_dispatch import TorchDispatchMode

from models import gating
from models.accounting import count_flops, count_params
from models.batch_norm import synchronise_batch_norm
from models.branch_tree import BranchTree
from models.gating import TaskWeights
from models.sharing.branched import BranchedModel
from models.sharing.taps import TapsModel
from models.spec import BackboneSpec, ModelSpec, Setting
from tests.models.task_cases import spec as task_spec

SIZE = (64, 64)
KINDS = ("classification", "depth", "segmentation")
ONE, TWO, THREE = (f"my_{kind}" for kind in KINDS)
SMALL = ["test_resnet", "test_byobnet", "test_vit"]
MANY = [
    *("densenet121", "mobilenetv3_small_050", "test_efficientnet", "test_convnext"),
    *("swin_tiny_patch4_window7_224", "decathlon_resnet26_quarter"),
]
IMAGES = torch.randint(0, 256, (3, 3, *SIZE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
small = pytest.mark.parametrize("backbone", SMALL)
cases = pytest.mark.parametrize(
    ("backbone", "joint"), [(name, False) for name in SMALL + MANY] + [(name, True) for name in SMALL]
)
modes = pytest.mark.parametrize("joint", [False, True], ids=["incremental", "joint"])


def spec(backbone: str, tasks: int, **settings: Setting) -> ModelSpec:
    return ModelSpec(
        strategy="taps",
        backbone=BackboneSpec(name=backbone, locations=3, size=SIZE),
        tasks=tuple(task_spec(kind, name=f"my_{kind}", head_width=8) for kind in KINDS[:tasks]),
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
        settings=tuple(sorted(settings.items())),
    )


def build(backbone: str = "test_resnet", tasks: int = 2, **settings: Setting) -> TapsModel:
    torch.manual_seed(0)
    return TapsModel(spec(backbone, tasks, **settings))


def plain(model: TapsModel) -> BranchedModel:
    """The base with the same heads, as hard sharing has it."""
    torch.manual_seed(0)
    tree = BranchTree.shared(len(model.spec.tasks), len(model.base))
    twin = BranchedModel(replace(model.spec, strategy="branched", groups=tree.groups, settings=()))
    twin.blocks.load_state_dict({_branch(name): value for name, value in model.base.state_dict().items()})
    twin.heads.load_state_dict(model.heads.state_dict())
    return twin.eval()


def _branch(name: str) -> str:
    location, _, path = name.partition(".")
    return f"{location}.0.{path}"


def shaken(
    model: TapsModel, opened: Callable[[int, int], bool] = lambda task, place: (task + place) % 2 == 0
) -> TapsModel:
    """Weights, norms, statistics, heads and gates that differ between tasks, as after training."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(0.1 * torch.rand(value.shape, generator=generator) - 0.05)
        for task, name in enumerate(model.spec.task_names):
            set_gates(model, name, [opened(task, place) for place in range(len(model.layers))])
    return model.eval()


def set_gates(model: TapsModel, task: str, gates: Sequence[bool]) -> None:
    with torch.no_grad():
        model.of(task).scores.copy_(torch.tensor([0.3 if is_open else 0.02 for is_open in gates]))


def close(model: TapsModel) -> None:
    for name in model.spec.task_names:
        set_gates(model, name, [False] * len(model.layers))


def share_norms(model: TapsModel) -> None:
    """Every task's norms become the base's."""
    for own in model.own:
        assert isinstance(own, TaskWeights)
        for path, norm in zip(own.paths, own.norms, strict=True):
            norm.load_state_dict(model.base.get_submodule(path).state_dict())


def loss_of(outputs: dict[str, Tensor]) -> Tensor:
    return torch.stack([output.float().square().mean() for output in outputs.values()]).sum()


def steps(model: TapsModel, tasks: Sequence[str], number: int = 20, *, lam: float = 0.1, lr: float = 0.05) -> None:
    """SGD with momentum and weight decay on some of the tasks, one optimiser for everything that trains."""
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(trained, lr=lr, momentum=0.9, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(2)
    for _ in range(number):
        images = torch.rand(4, 3, *SIZE, generator=generator)
        optimiser.zero_grad()
        (loss_of(model(images, tasks)) + lam * model.penalty(tasks)).backward()
        optimiser.step()
    model.eval()


def copies(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(module: nn.Module, before: dict[str, Tensor]) -> bool:
    after = module.state_dict()
    return after.keys() == before.keys() and all(torch.equal(value, before[name]) for name, value in after.items())


@cases
def test_closed_gates_are_the_base_to_the_bit(backbone: str, joint: bool) -> None:
    model = shaken(build(backbone, joint=joint))
    close(model)
    share_norms(model)
    with torch.no_grad():
        found, expected = model(IMAGES[:1]), plain(model)(IMAGES[:1])
    assert all(torch.equal(found[name], expected[name]) and found[name].isfinite().all() for name in expected)
    assert model.active_layers(ONE) == []


@pytest.mark.parametrize("backbone", SMALL + MANY)
def test_a_first_network_is_the_base(backbone: str) -> None:
    """All gates open and δ zero, so nothing changes yet."""
    model = build(backbone).eval()
    assert model.active_layers(ONE) == list(model.gates(ONE)) == [layer.name for layer in model.layers]
    assert list(model.gates(ONE).values()) == pytest.approx([0.15] * len(model.layers))
    with torch.no_grad():
        found, expected = model(IMAGES[:1]), plain(model)(IMAGES[:1])
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@small
def test_the_base_never_learns(backbone: str) -> None:
    """Twenty steps in train mode: weights and running statistics stay, to the bit."""
    model = build(backbone)
    before, own = copies(model.base), copies(model.own)
    steps(model, (ONE, TWO))
    assert all(parameter.grad is None for parameter in model.base.parameters())
    assert same(model.base, before)
    assert not any(parameter.requires_grad for parameter in model.base.parameters())
    moved = [name for name, value in model.own.state_dict().items() if not torch.equal(value, own[name])]
    assert len(moved) == len(own), "everything of the tasks' own does"


@small
@modes
def test_training_one_task_leaves_the_others_predictions(backbone: str, joint: bool) -> None:
    model = shaken(build(backbone, tasks=3, joint=joint))
    before, own = copies(model), {name: copies(model.of(name)) for name in model.spec.task_names}
    with torch.no_grad():
        first = model(IMAGES)
    steps(model, (TWO,), 5)
    with torch.no_grad():
        last = model(IMAGES)
    assert same(model.of(ONE), own[ONE])
    assert same(model.of(THREE), own[THREE])
    assert not torch.equal(first[TWO], last[TWO])
    if not joint:
        assert torch.equal(first[ONE], last[ONE])
        assert torch.equal(first[THREE], last[THREE])
    touched = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[1] for name in touched if name.startswith(("own", "heads"))} == {"1"}


@small
@modes
def test_norms_and_heads_are_a_tasks_own(backbone: str, joint: bool) -> None:
    model = build(backbone, joint=joint)
    norms = [path for path, module in model.base.named_modules() if gating.is_norm(module)]
    for name in (ONE, TWO):
        assert model.of(name).paths == norms
        assert [value for value in model.of(name).norms.parameters() if not value.requires_grad] == []
    assert not any(
        parameter.requires_grad for path in norms for parameter in model.base.get_submodule(path).parameters()
    )
    steps(model, (ONE, TWO), 2)
    for left, right in zip(model.of(ONE).norms, model.of(TWO).norms, strict=True):
        for key, value in left.state_dict().items():
            equal = torch.equal(value, right.state_dict()[key])
            assert equal == (key == "num_batches_tracked"), key
    assert len(model.heads) == 2


@cases
def test_what_a_task_merges_into_is_plain(backbone: str, joint: bool) -> None:
    model = shaken(build(backbone, joint=joint))
    with torch.no_grad():
        whole = model(IMAGES[:1])
        for name in model.spec.task_names:
            merged = model.merged(name)
            assert torch.equal(merged(IMAGES[:1])[name], whole[name])
            assert torch.equal(model(IMAGES[:1], (name,))[name], whole[name])
            pairs = zip(merged.features(IMAGES[:1], name), model.features(IMAGES[:1], name), strict=True)
            assert all(torch.equal(*pair) for pair in pairs)
    alone = model.only(TWO)
    twin = BranchedModel(replace(alone.spec, groups=BranchTree.shared(1, len(model.base)).groups))
    assert type(alone) is BranchedModel
    assert not alone.training
    assert same(alone, copies(model.merged(TWO)))
    modules = [(path, type(module)) for path, module in alone.named_modules()]
    assert modules == [(path, type(module)) for path, module in twin.named_modules()]
    assert not any(kind.__module__ == gating.__name__ for _, kind in modules)
    assert alone.state_dict().keys() == twin.state_dict().keys()
    assert count_params(alone) == count_params(twin)
    assert count_flops(model, IMAGES[:1], (TWO,)) == count_flops(alone, IMAGES[:1])


def test_merging_copies() -> None:
    model = shaken(build())
    before = copies(model)
    for parameter in model.merged(ONE).parameters():
        parameter.data.zero_()
    assert same(model, before)


class _Ops(TorchDispatchMode):
    """Counts what is dispatched."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def dispatched(network: nn.Module, *inputs: Any) -> Counter[str]:
    with torch.no_grad(), _Ops() as ops:
        network(*inputs)
    return ops.counts


@small
def test_gates_cost_nothing_in_inference(backbone: str) -> None:
    """Beside the plain network's operations there is the look at the scores, and with a joint base one addition for
    each open weight."""
    for joint in (False, True):
        model = shaken(build(backbone, joint=joint))
        expected = dispatched(model.merged(TWO), IMAGES)
        for opened in (0, len(model.layers) // 2, len(model.layers)):
            set_gates(model, TWO, [place < opened for place in range(len(model.layers))])
            more = dispatched(model, IMAGES, (TWO,)) - expected
            additions = sum(len(layer.parameters) for layer in model.layers[:opened]) if joint else 0
            assert more.pop("aten.add.Tensor", 0) == additions
            assert more.keys() <= {"aten.ge.Scalar", "aten._to_copy.default", "aten.unbind.int"}, more


@contextmanager
def calls(model: TapsModel) -> Iterator[Counter[int]]:
    """Counts the runs of each block of the base."""
    counts: Counter[int] = Counter()
    hooks = [
        block.register_forward_hook(lambda *_, place=place: counts.update([place]))
        for place, block in enumerate(model.base)
    ]
    yield counts
    for hook in hooks:
        hook.remove()


@small
@pytest.mark.parametrize("apart_from", [0, 1, 2, 3])
def test_tasks_that_agree_run_together(backbone: str, apart_from: int) -> None:
    """Two tasks share the blocks before the first that differs; from there on they run in turn, with equal results."""
    model = shaken(build(backbone, tasks=2))
    gates = [int(layer.parameters[0].split(".")[0]) >= apart_from for layer in model.layers]
    share_norms(model)
    set_gates(model, ONE, [False] * len(gates))
    set_gates(model, TWO, gates)
    with torch.no_grad(), calls(model) as counts:
        together = model(IMAGES)
        assert counts == {place: 1 if place < apart_from else 2 for place in range(3)}
        counts.clear()
        model(IMAGES, (TWO,))
        assert counts == dict.fromkeys(range(3), 1)
    with torch.no_grad():
        for name in (ONE, TWO):
            assert torch.equal(model(IMAGES, (name,))[name], together[name])
            assert torch.equal(model.merged(name)(IMAGES)[name], together[name])


def test_other_statistics_keep_tasks_apart() -> None:
    model = shaken(build())
    share_norms(model)
    close(model)
    norm = model.of(TWO).norms[0]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked += 5
    with torch.no_grad(), calls(model) as counts:
        model(IMAGES)
        assert set(counts.values()) == {1}, "how long a task trained does not matter"
        counts.clear()
        assert norm.running_mean is not None
        norm.running_mean[0] += 1
        model(IMAGES)
        assert set(counts.values()) == {2}
        counts.clear()
        share_norms(model)
        model.train()(IMAGES)
        assert set(counts.values()) == {2}, "in training every task gathers its own statistics"


@small
def test_a_joint_base_hears_every_task_and_a_delta_its_own(backbone: str) -> None:
    """Eq. 4: dL/dw is the sum over tasks of g, dL/dδ of a task I g, with g from the merged networks."""
    model = shaken(build(backbone, tasks=2, joint=True)).eval()
    model.zero_grad()
    loss_of(model(IMAGES)).backward()
    total: dict[str, Tensor] = {}
    for name in (ONE, TWO):
        alone = model.merged(name)
        loss_of(alone(IMAGES)).backward()
        weights = iter(model.of(name).weights)
        for layer, is_open in zip(model.layers, model.of(name).gates(), strict=True):
            for key in layer.parameters:
                expected = alone.blocks.get_parameter(_branch(key)).grad
                delta = next(weights).grad
                assert expected is not None
                assert delta is not None
                torch.testing.assert_close(delta, expected if is_open else torch.zeros_like(expected))
                total[key] = total[key] + expected if key in total else expected
    for key, expected in total.items():
        found = model.base.get_parameter(key).grad
        assert found is not None
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert len({id(parameter.grad) for parameter in model.parameters() if parameter.grad is not None}) == sum(
        parameter.grad is not None for parameter in model.parameters()
    )


def test_the_penalty_is_the_mean_score_of_the_batchs_tasks() -> None:
    model = build(tasks=3)
    with torch.no_grad():
        for name, sign in ((ONE, 1.0), (TWO, -1.0), (THREE, 3.0)):
            model.of(name).scores.copy_(sign * torch.linspace(0.1, 0.5, len(model.layers)))
    assert model.penalty([ONE]).item() == pytest.approx(0.3)
    assert model.penalty([ONE, TWO]).item() == pytest.approx(0.6)
    assert model.penalty(model.spec.task_names).item() == pytest.approx(1.5)
    model.penalty([TWO, THREE]).backward()
    assert model.of(ONE).scores.grad is None
    number = len(model.layers)
    torch.testing.assert_close(model.of(TWO).scores.grad, torch.full((number,), -1 / number))
    torch.testing.assert_close(model.of(THREE).scores.grad, torch.full((number,), 1 / number))


@modes
def test_a_step_is_that_of_the_relaxed_objective(joint: bool) -> None:
    """Eq. 3 and 4 written by hand for two tasks, w + (I + s - s.detach()) δ, through autograd alone, in 64 bits."""
    model = shaken(build(tasks=2, joint=joint, gated=("*", "!layer1*"))).double().train()
    expected = deepcopy(model)
    (loss_of(model(IMAGES.double() / 255)) + 0.7 * model.penalty((ONE, TWO))).backward()
    relaxed = torch.zeros((), dtype=torch.float64)
    leaves: dict[str, dict[str, Tensor]] = {}
    for index, name in enumerate((ONE, TWO)):
        own = expected.of(name)
        score = own.scores
        strength = torch.tensor(own.gates()).double() + score - score.detach()
        leaves[name], tensors, weights = {}, dict(own.norm_tensors()), iter(own.weights)
        for place, layer in enumerate(expected.layers):
            for key in layer.parameters:
                base, weight = expected.base.get_parameter(key), next(weights)
                delta = leaves[name][key] = (weight if joint else weight - base).detach().requires_grad_()
                tensors[key] = base + strength[place] * delta
        state, features = expected.normalise(IMAGES.double() / 255), []
        for location, block in enumerate(expected.base):
            inside = {key.partition(".")[2]: value for key, value in tensors.items() if key.startswith(f"{location}.")}
            state = torch.func.functional_call(block, inside, (state,))
            features.append(state)
        relaxed = relaxed + expected.heads[index](features, SIZE).square().mean() + 0.7 * score.abs().mean()
    relaxed.backward()
    for name in (ONE, TWO):
        torch.testing.assert_close(model.of(name).scores.grad, expected.of(name).scores.grad)
        for (key, leaf), weight in zip(leaves[name].items(), model.of(name).weights, strict=True):
            torch.testing.assert_close(weight.grad, leaf.grad, msg=lambda text, key=key: f"{key}: {text}")
    for name, parameter in expected.named_parameters():
        if ".weights." not in name:
            torch.testing.assert_close(
                model.get_parameter(name).grad, parameter.grad, msg=lambda t, n=name: f"{n}: {t}"
            )


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@modes
def test_weight_decay_draws_delta_to_zero(joint: bool, form: torch.memory_format) -> None:
    """In both modes, through open gates and closed ones; no optimiser's own decay comes on top."""
    without, decaying = (shaken(build(joint=joint, weight_decay=decay)) for decay in (0.0, 0.5))
    for model in (without, decaying):
        model.to(memory_format=form)  # pyright: ignore[reportCallIssue]
        loss_of(model(IMAGES)).backward()
    assert without.no_weight_decay() == {name for name, _ in without.named_parameters() if ".weights." in name}
    for name, parameter in without.named_parameters():
        other = decaying.get_parameter(name).grad
        if ".weights." in name:
            assert parameter.grad is not None
            place = name.split(".")
            own = without.own[int(place[1])]
            assert isinstance(own, TaskWeights)
            keys = [key for layer in own.layers for key in layer.parameters]
            base = without.base.get_parameter(keys[int(place[-1])]).detach()
            delta = parameter.detach() if joint else parameter.detach() - base
            torch.testing.assert_close(other, parameter.grad + 0.5 * delta)
        else:
            torch.testing.assert_close(other, parameter.grad)


@small
@modes
def test_copies_and_state_dicts(backbone: str, joint: bool) -> None:
    model = shaken(build(backbone, joint=joint))
    twin, again = deepcopy(model), build(backbone, joint=joint).eval()
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected = model(IMAGES)
        for other in (twin, again):
            assert all(torch.equal(value, expected[name]) for name, value in other(IMAGES).items())
    steps(twin, (ONE,), 1)
    with torch.no_grad():
        assert all(torch.equal(value, expected[name]) for name, value in model(IMAGES).items()), "a copy is apart"


def test_averaged_weights() -> None:
    """EMA of the effective weights is the base with the EMA of δ; the base stays to the bit."""
    model = shaken(build())
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    average.update_parameters(model)
    before, first = copies(model.base), model.of(ONE).weights[0].detach().clone()
    steps(model, (ONE, TWO), 1)
    average.update_parameters(model)
    assert isinstance(average.module, TapsModel)
    assert same(average.module.base, before)
    torch.testing.assert_close(average.module.of(ONE).weights[0], (first + model.of(ONE).weights[0]) / 2)


@small
@modes
def test_half_precision_and_channels_last(backbone: str, joint: bool) -> None:
    model = shaken(build(backbone, joint=joint))
    with torch.no_grad():
        expected = model(IMAGES)
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    images = (IMAGES.float() / 255).to(memory_format=torch.channels_last)
    with torch.no_grad():
        found = model(images)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(images)
    loss_of(outputs).backward()
    for name, value in expected.items():
        torch.testing.assert_close(outputs[name].float(), value, rtol=0.1, atol=0.1 * float(value.abs().max()))
    for parameter in (*model.own.parameters(), *model.heads.parameters()):
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


@small
def test_the_base_comes_from_a_branched_network(backbone: str) -> None:
    source, model = shaken(build(backbone)), shaken(build(backbone))
    network = plain(source)
    model.start_from({"whatever": network.state_dict()})
    assert same(model.base, copies(source.base))
    share = plain(model)
    with torch.no_grad():
        found, expected = model(IMAGES), share(IMAGES)
    assert all(torch.equal(found[name], expected[name]) for name in expected), "δ is zero and the norms are the base's"


def test_settings() -> None:
    model = build(threshold=0.5, score=0.4, score_lr=10.0, gated=("layer2*", "!*downsample*"))
    assert model.active_layers(ONE) == []
    assert all(layer.name.startswith("layer2") and "downsample" not in layer.name for layer in model.layers)
    scales = {name: model.lr_scale(name) for name, _ in model.named_parameters()}
    assert {name for name, scale in scales.items() if scale != 1} == {"own.0.scores", "own.1.scores"}
    assert set(scales.values()) == {1.0, 10.0}
    with pytest.raises(ValueError, match="TAPS has no setting speed; it has gated, joint"):
        build(speed=3.0)
    with pytest.raises(ValueError, match="name one of the tasks my_classification, my_depth"):
        model.gates()
    alone = build(tasks=1)
    assert alone.gates() == alone.gates(ONE)
    assert alone.merged().spec.task_names == (ONE,)


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    wait = timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=wait)
    torch.save(_train_ranks(rank, 2), f"{folder}/{rank}")
    dist.destroy_process_group()


def _train_ranks(rank: int, world: int) -> dict[str, Tensor]:
    model = shaken(build("test_resnet", tasks=2))
    model = synchronise_batch_norm(model, torch.device("cpu")).train()
    assert isinstance(model, TapsModel)
    forward = nn.parallel.DistributedDataParallel(model, broadcast_buffers=False) if world > 1 else model
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01, momentum=0.9)
    images = torch.rand(3, 8, 3, *SIZE, generator=torch.Generator().manual_seed(5))
    for batch in images:
        optimiser.zero_grad()
        (loss_of(forward(batch[rank::world])) + 0.1 * model.penalty((ONE, TWO))).backward()
        optimiser.step()
    return model.state_dict()


@pytest.mark.slow
def test_two_ranks_are_one(tmp_path: Path) -> None:
    """Each task's running statistics and gradients are those of the whole batch."""
    torch.multiprocessing.spawn(_rank, args=(str(tmp_path),), nprocs=2)
    one, two, other = _train_ranks(0, 1), torch.load(tmp_path / "0"), torch.load(tmp_path / "1")
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(two[name], other[name]), name
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")
