"""A network adapted to a task begins as its base, and only what the task owns ever changes or counts."""

import math
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from models import bundle
from models.adaptation import ADAPTATIONS
from models.backbone import build_blocks
from models.batch_norm import GlobalBatchNorm2d, synchronise_batch_norm
from models.sharing import SHARING
from models.sharing.adapted import AdaptedModel
from models.sharing.branched import BranchedModel
from models.spec import BackboneSpec, ModelSpec, Setting
from tests.models.task_cases import spec as task_spec

SMALL = ["test_resnet", "test_byobnet", "test_efficientnet", "test_vit", "test_convnext"]
FEW = ["test_resnet", "test_efficientnet", "test_vit"]
LARGE = [
    *("resnet18", "densenet121", "mobilenetv3_small_100", "convnext_atto", "vit_tiny_patch16_224"),
    *("swin_tiny_patch4_window7_224", "davit_tiny", "vgg16_bn"),
]
EVERY = [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]
RANK, BOUND = 3, 60_000
SETTINGS: dict[str, dict[str, Setting]] = {"lora": {"rank": RANK}, "manual_freezing": {"weights": BOUND}}
NORMS = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


def spec(strategy: str, backbone: str, settings: tuple[tuple[str, Setting], ...] = (), tasks: int = 1) -> ModelSpec:
    return ModelSpec(
        strategy=strategy,
        backbone=BackboneSpec(name=backbone, locations=4, size=(56, 56) if "swin" in backbone else (64, 64)),
        tasks=tuple(task_spec("segmentation", name=f"mine{task}", head_width=4) for task in range(tasks)),
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
        groups=((0,) * tasks,) * 4 if strategy == "branched" else (),
        settings=settings,
    )


def build(method: str, backbone: str, seed: int = 0) -> AdaptedModel:
    if method == "lora":
        pytest.importorskip("peft")
    torch.manual_seed(seed)
    settings = tuple(sorted({"method": method, **SETTINGS.get(method, {})}.items()))
    return AdaptedModel(spec("adapted", backbone, settings))


def plain(backbone: str, seed: int = 0) -> BranchedModel:
    torch.manual_seed(seed)
    return BranchedModel(spec("branched", backbone))


@cache
def trained_base(backbone: str) -> BranchedModel:
    """A base whose weights, biases and running statistics are none that a fresh network has."""
    base = plain(backbone, seed=1)
    with torch.no_grad():
        for value in base.state_dict().values():
            if value.is_floating_point():
                value.mul_(0.9 + 0.2 * torch.rand_like(value))
                value.add_(0.05 * torch.rand_like(value) if value.ndim == 1 else 0)
    return base.eval()


def images(backbone: str) -> Tensor:
    size = (56, 56) if "swin" in backbone else (64, 64)
    return torch.randint(0, 256, (2, 3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def step(model: AdaptedModel, backbone: str) -> None:
    optimiser = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    (output,) = model.train()(images(backbone)).values()
    output.square().mean().backward()
    optimiser.step()


def started(method: str, backbone: str) -> AdaptedModel:
    model = build(method, backbone)
    model.start_from({"any": trained_base(backbone).state_dict()})
    return model


def base_tensors(model: AdaptedModel) -> dict[str, Tensor]:
    """The base's tensors by the names that they have in the plain network."""
    state = model.blocks.state_dict(keep_vars=True)
    return {name: state[here] for name, here in model.renamed.items()}


@cache
def norm_names(backbone: str) -> frozenset[str]:
    """Names of the parameters and buffers of the plain network's normalisation layers."""
    blocks = nn.ModuleList(build_blocks(spec("branched", backbone).backbone))
    norms = [(path, module) for path, module in blocks.named_modules() if isinstance(module, NORMS)]
    return frozenset(f"{path}.{name}" for path, module in norms for name in module.state_dict())


@pytest.mark.parametrize("backbone", SMALL)
@pytest.mark.parametrize("method", ADAPTATIONS)
def test_a_new_network_is_the_plain_one_of_its_seed(method: str, backbone: str) -> None:
    """Bit for bit, head too: whatever is added begins as nothing."""
    model, same = build(method, backbone).eval(), plain(backbone).eval()
    with torch.no_grad():
        assert torch.equal(model(images(backbone))["mine0"], same(images(backbone))["mine0"])


@pytest.mark.parametrize("backbone", EVERY)
@pytest.mark.parametrize("method", ADAPTATIONS)
def test_it_starts_from_a_base_bit_for_bit(method: str, backbone: str) -> None:
    base, model = trained_base(backbone), started(method, backbone).eval()
    with torch.no_grad():
        found, expected = (network.features(images(backbone), "mine0") for network in (model, base))
    assert all(map(torch.equal, found, expected))
    assert all(bool(feature.isfinite().all()) for feature in found)
    head = build(method, backbone).heads.state_dict()
    heads = model.heads.state_dict()
    assert all(torch.equal(value, head[name]) for name, value in heads.items()), "heads are not taken"


@pytest.mark.parametrize("backbone", SMALL)
@pytest.mark.parametrize("method", ADAPTATIONS)
def test_a_step_changes_what_is_the_tasks_own_and_nothing_else(method: str, backbone: str) -> None:
    model = started(method, backbone)
    before = {name: value.clone() for name, value in base_tensors(model).items()}
    head = deepcopy(model.heads.state_dict())
    step(model, backbone)
    changed = {name for name, value in base_tensors(model).items() if not torch.equal(value, before[name])}
    trained = {name for name, value in base_tensors(model).items() if value.requires_grad}
    norms = norm_names(backbone) if method != "feature_extractor" else frozenset()
    assert changed <= norms | trained
    assert {name for name in norms if before[name].ndim == 1 and "running" not in name} <= trained
    if method == "fine_tuning":
        assert trained | norms == before.keys()
    elif method == "manual_freezing":
        assert 0 < sum(before[name].numel() for name in trained - norms) <= BOUND
    else:
        assert trained <= norms
    assert bool(changed) == (method != "feature_extractor")
    assert any(not torch.equal(value, head[name]) for name, value in model.heads.state_dict().items())
    assert all(weight.grad is not None for weight in model.parameters() if weight.requires_grad), "DDP waits for all"


@pytest.mark.parametrize("backbone", SMALL)
@pytest.mark.parametrize("method", [method for method in ADAPTATIONS if method not in ("norm_only", "manual_freezing")])
def test_what_is_added_is_learned(method: str, backbone: str) -> None:
    """Every added tensor has a gradient in the second step; what a zero multiplies (LoRA's A) has none in the first."""
    model = started(method, backbone)
    base = {f"blocks.{here}" for here in model.renamed.values()}
    added = [weight for name, weight in model.blocks.named_parameters(prefix="blocks") if name not in base]
    step(model, backbone)
    model.zero_grad()
    step(model, backbone)
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in added)
    assert bool(added) == (method not in ("fine_tuning", "feature_extractor"))


def expected_params(method: str, backbone: str) -> int:
    """Counted from the plain network by the papers' formulas."""
    blocks = nn.ModuleList(build_blocks(spec("branched", backbone).backbone))
    layers = [module for module in blocks.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    spatial = [layer for layer in layers if isinstance(layer, nn.Conv2d) and math.prod(layer.kernel_size) > 1]
    norms = sum(weight.numel() for name, weight in blocks.named_parameters() if name in norm_names(backbone))
    if method == "fine_tuning":
        return sum(weight.numel() for weight in blocks.parameters()) - norms
    if method == "manual_freezing":
        total = 0
        for layer in reversed(layers):
            size = sum(weight.numel() for weight in layer.parameters())
            if total + size > BOUND:
                break
            total += size
        return total
    if method == "lora":
        dense = [layer for layer in layers if getattr(layer, "groups", 1) == 1]
        return sum(RANK * (layer.weight[0].numel() + len(layer.weight)) for layer in dense)
    if method == "piggyback":
        return sum(layer.weight.numel() for layer in layers)
    if method == "series_adapters":
        return sum(layer.out_channels**2 // layer.groups for layer in spatial)
    if method == "parallel_adapters":
        return sum(layer.out_channels * layer.in_channels // layer.groups for layer in spatial)
    return 0


@pytest.mark.parametrize("backbone", SMALL)
@pytest.mark.parametrize("method", ADAPTATIONS)
def test_parameters_are_those_of_the_formula(method: str, backbone: str) -> None:
    assert build(method, backbone).own_params() == expected_params(method, backbone)


@pytest.mark.parametrize("backbone", FEW)
@pytest.mark.parametrize("method", ADAPTATIONS)
def test_bits_are_those_of_all_that_differs_from_the_base(method: str, backbone: str) -> None:
    """Against the bytes of the whole network's state without what is the base's; masks at a bit a weight."""
    model = started(method, backbone)
    kept = {f"blocks.{here}" for name, here in model.renamed.items() if _is_the_bases(model, name)}
    own = {name: value for name, value in model.state_dict().items() if name not in kept}
    masks = {name for name in own if name.endswith(".scores")}
    expected = sum(value.numel() if name in masks else 8 * value.nbytes for name, value in own.items())
    assert model.own_bits() == expected
    assert bool(masks) == (method == "piggyback")


def _is_the_bases(model: AdaptedModel, name: str) -> bool:
    if name in norm_names(model.spec.backbone.name):
        return model.spec.settings == (("method", "feature_extractor"),)
    return not base_tensors(model)[name].requires_grad


@pytest.mark.parametrize("backbone", FEW)
@pytest.mark.parametrize("method", ADAPTATIONS)
def test_it_survives_a_copy_and_a_bundle_to_the_bit(method: str, backbone: str, tmp_path: Path) -> None:
    model = started(method, backbone)
    step(model, backbone)
    model.eval()
    bundle.save(model, tmp_path)
    read, copied = bundle.load_network(tmp_path).eval(), deepcopy(model)
    assert read.spec == model.spec
    state = model.state_dict()
    with torch.no_grad():
        expected = model(images(backbone))["mine0"]
        for other in (read, copied):
            assert other.state_dict().keys() == state.keys()
            assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())
            assert torch.equal(other(images(backbone))["mine0"], expected)
    step(copied, backbone)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in read.state_dict().items()), "its own"


@pytest.mark.parametrize("method", ADAPTATIONS)
def test_a_copy_starts_from_a_base_as_the_first_did(method: str) -> None:
    copied = deepcopy(build(method, "test_resnet"))
    copied.start_from({"any": trained_base("test_resnet").state_dict()})
    state = started(method, "test_resnet").state_dict()
    assert all(torch.equal(value, state[name]) for name, value in copied.state_dict().items())


@pytest.mark.parametrize("backbone", FEW)
@pytest.mark.parametrize("method", ADAPTATIONS)
def test_it_trains_in_half_precision(method: str, backbone: str) -> None:
    model = started(method, backbone).train()
    with torch.autocast("cpu", torch.bfloat16):
        (output,) = model(images(backbone)).values()
    output.float().square().mean().backward()
    gradients = [weight.grad for weight in model.parameters() if weight.requires_grad]
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet"])
@pytest.mark.parametrize("method", ADAPTATIONS)
def test_global_batch_norm_takes_over(method: str, backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = started(method, backbone)
    step(model, backbone)
    with torch.no_grad():
        expected = model.eval()(images(backbone))["mine0"]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    synchronise_batch_norm(model, torch.device("cpu"))
    assert any(isinstance(module, GlobalBatchNorm2d) for module in model.blocks.modules())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert {name for name, weight in model.named_parameters() if weight.requires_grad} == trained
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images(backbone))["mine0"], expected)
    frozen = {module.training for module in model.train().blocks.modules() if isinstance(module, GlobalBatchNorm2d)}
    assert frozen == {method != "feature_extractor"}


@pytest.mark.parametrize("method", ADAPTATIONS)
def test_only_a_feature_extractor_keeps_the_bases_statistics(method: str) -> None:
    model = started(method, "test_resnet").train()
    before = {name: value.clone() for name, value in base_tensors(model).items() if "running" in name}
    with torch.no_grad():
        model(images("test_resnet"))
    moved = {not torch.equal(value, before[name]) for name, value in base_tensors(model).items() if name in before}
    assert moved == {method != "feature_extractor"}
    assert model.training
    assert not any(module.training for module in model.eval().modules())


@pytest.mark.parametrize("method", ADAPTATIONS)
def test_the_seed_decides_the_first_weights(method: str) -> None:
    one, same, other = (build(method, "test_resnet", seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("method", ADAPTATIONS)
def test_weight_decay_may_not_close_masks(method: str) -> None:
    model = build(method, "test_resnet")
    spared = model.no_weight_decay()
    assert spared <= {name for name, _ in model.named_parameters()}
    scores = {name for name, _ in model.named_parameters() if name.endswith(".scores")}
    assert scores <= spared
    assert bool(spared) == (method == "piggyback")


def test_it_is_for_one_task_and_that_tasks_network_already() -> None:
    model = build("norm_only", "test_resnet").eval()
    with torch.no_grad():
        outputs = model(images("test_resnet"))
        assert list(outputs) == ["mine0"]
        assert torch.equal(model(images("test_resnet"), ["mine0"])["mine0"], outputs["mine0"])
        assert model(images("test_resnet"), []) == {}
    assert model.only("mine0") is model
    assert SHARING["adapted"] is AdaptedModel
    with pytest.raises(ValueError, match="for one task, not 2: mine0, mine1"):
        AdaptedModel(spec("adapted", "test_resnet", (("method", "lora"),), tasks=2))


@pytest.mark.parametrize("settings", [(), (("method", "magic"),)])
def test_an_unknown_method_is_refused_with_the_known(settings: tuple[tuple[str, Setting], ...]) -> None:
    with pytest.raises(ValueError, match="is no way to adapt a network; use one of fine_tuning, feature_extractor"):
        AdaptedModel(spec("adapted", "test_resnet", settings))


def test_a_setting_of_another_method_is_refused() -> None:
    with pytest.raises(ValueError, match="norm_only has no setting rank; it has none"):
        AdaptedModel(spec("adapted", "test_resnet", (("method", "norm_only"), ("rank", 4))))
