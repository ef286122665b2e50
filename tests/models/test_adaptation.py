"""Each way of adapting does to one layer what its paper says, and nothing to the base's own tensors."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.adaptation import ADAPTATIONS
from models.adaptation.piggyback import START, THRESHOLD
from models.spec import Setting

LAYERS = {
    "conv": lambda: nn.Conv2d(6, 4, 3, padding=1),
    "strided": lambda: nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False),
    "depth-wise": lambda: nn.Conv2d(6, 6, 5, padding=2, groups=6),
    "grouped": lambda: nn.Conv2d(6, 4, 3, stride=2, padding=1, groups=2),
    "dilated": lambda: nn.Conv2d(6, 4, 3, padding=2, dilation=2),
    "1 x 1": lambda: nn.Conv2d(6, 4, 1),
    "linear": lambda: nn.Linear(6, 4),
}
SETTINGS: dict[str, dict[str, Setting]] = {"lora": {"rank": 2, "alpha": 3.0}, "manual_freezing": {"weights": 300}}


def layers(*names: str) -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList(LAYERS[name]() for name in names).double().requires_grad_(False)


def images(layer: str) -> Tensor:
    return torch.randn(2, *((5, 6) if layer == "linear" else (6, 9, 9)), dtype=torch.float64)


def adapted(method: str, *names: str) -> nn.ModuleList:
    blocks = layers(*names)
    ADAPTATIONS[method].apply(blocks, SETTINGS.get(method, {}))
    with torch.no_grad():
        for weight in blocks.parameters():
            if weight.requires_grad:
                weight.add_(0.3 * torch.randn_like(weight))
    return blocks.double()


@pytest.mark.parametrize("method", ADAPTATIONS)
def test_the_bases_tensors_stay_the_objects_that_they_were(method: str) -> None:
    blocks = layers(*LAYERS)
    before = {id(weight): weight.clone() for weight in blocks.parameters()}
    ADAPTATIONS[method].apply(blocks, SETTINGS.get(method, {}))
    after = {id(weight): weight for weight in blocks.parameters()}
    assert before.keys() <= after.keys()
    assert all(torch.equal(weight, after[key]) for key, weight in before.items())


@pytest.mark.parametrize("method", ADAPTATIONS)
def test_networks_may_go_on_reading_the_geometry_of_their_layers(method: str) -> None:
    """DaViT's patch embedding pads by `self.conv.kernel_size`."""
    plain, blocks = layers(*LAYERS), layers(*LAYERS)
    ADAPTATIONS[method].apply(blocks, SETTINGS.get(method, {}))
    for before, after in zip(plain, blocks, strict=True):
        assert isinstance(before, nn.Conv2d | nn.Linear)
        for name in before.__constants__:
            assert getattr(after, name) == getattr(before, name)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_mask_keeps_weights_whose_score_reaches_the_threshold(layer: str) -> None:
    (plain,), (masked,) = layers(layer), adapted("piggyback", layer)
    scores: Tensor = masked.get_parameter("parametrizations.weight.0.scores")
    with torch.no_grad():
        scores.flatten()[0], scores.flatten()[1] = THRESHOLD, THRESHOLD - 1e-9
    mask = (scores >= THRESHOLD).double()
    assert (mask.flatten()[0], mask.flatten()[1]) == (1, 0)
    assert torch.equal(masked.weight, plain.get_parameter("weight") * mask)  # pyright: ignore[reportArgumentType]


def test_all_weights_are_in_use_at_the_start() -> None:
    assert START >= THRESHOLD


@pytest.mark.parametrize("layer", LAYERS)
def test_the_gradient_of_a_score_is_that_of_the_relaxed_mask(layer: str) -> None:
    """Against central differences of m -> loss(w m), taken at the binary mask."""
    (masked,) = adapted("piggyback", layer)
    scores, weight = (masked.get_parameter(f"parametrizations.weight.{name}") for name in ("0.scores", "original"))
    inputs = images(layer)
    masked(inputs).square().sum().backward()
    mask = (scores >= THRESHOLD).double()
    assert scores.grad is not None
    (plain,) = layers(layer)

    def relaxed(mask: Tensor) -> float:
        state = dict(plain.state_dict()) | {"weight": weight * mask}
        return float(torch.func.functional_call(plain, state, (inputs,)).square().sum())

    for place in torch.randperm(mask.numel())[:5].tolist():
        step = torch.zeros_like(mask).flatten()
        step[place] = 1e-4
        step = step.view_as(mask)
        expected = (relaxed(mask + step) - relaxed(mask - step)) / 2e-4
        assert float(scores.grad.flatten()[place]) == pytest.approx(expected, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("layer", [name for name in LAYERS if name not in ("1 x 1", "linear")])
def test_a_parallel_adapter_is_a_second_convolution_beside_the_first(layer: str) -> None:
    (plain,), (both,) = layers(layer), adapted("parallel_adapters", layer)
    assert isinstance(plain, nn.Conv2d)
    beside = both.get_parameter("parametrizations.weight.0.adapter")
    inputs = images(layer)
    expected = plain(inputs) + F.conv2d(inputs, beside, stride=plain.stride, groups=plain.groups)
    torch.testing.assert_close(both(inputs), expected)


def test_a_parallel_adapter_of_patches_takes_the_middle_of_each() -> None:
    blocks = nn.ModuleList([nn.Conv2d(3, 5, 4, stride=4)]).requires_grad_(False)
    inputs = torch.randn(2, 3, 10, 13)
    before = blocks[0](inputs)
    ADAPTATIONS["parallel_adapters"].apply(blocks, {})
    beside = blocks[0].get_parameter("parametrizations.weight.0.adapter")
    nn.init.normal_(beside)
    torch.testing.assert_close(blocks[0](inputs), before + F.conv2d(inputs[..., 1:9, 1:13], beside, stride=4))


@pytest.mark.parametrize("layer", [name for name in LAYERS if name not in ("1 x 1", "linear")])
def test_a_series_adapter_adds_to_what_the_convolution_gave(layer: str) -> None:
    (plain,), (series,) = layers(layer), adapted("series_adapters", layer)
    assert isinstance(plain, nn.Conv2d)
    inputs = images(layer)
    given = plain(inputs)
    normal = F.batch_norm(given, None, None, *series.norm.parameters(), training=True)  # pyright: ignore
    change = F.conv2d(normal, series.get_parameter("adapter.weight"), groups=plain.groups)
    torch.testing.assert_close(series(inputs), given + change)


@pytest.mark.parametrize("method", ["series_adapters", "parallel_adapters"])
def test_adapters_leave_layers_of_one_pixel_alone(method: str) -> None:
    for plain, same in zip(layers("conv", "1 x 1", "linear"), adapted(method, "conv", "1 x 1", "linear"), strict=True):
        changed = {name for name, _ in same.named_parameters()} != {name for name, _ in plain.named_parameters()}
        assert changed == (getattr(plain, "kernel_size", None) == (3, 3))


@pytest.mark.parametrize("method", ["series_adapters", "parallel_adapters"])
def test_adapters_need_a_convolution(method: str) -> None:
    with pytest.raises(ValueError, match=rf"{method}: the backbone has no convolution of more than 1 x 1"):
        ADAPTATIONS[method].apply(layers("linear", "1 x 1"), {})


@pytest.mark.parametrize("layer", ["conv", "strided", "1 x 1", "linear"])
def test_lora_adds_a_product_of_the_rank(layer: str) -> None:
    pytest.importorskip("peft")
    (plain,), (low,) = layers(layer), adapted("lora", layer)
    a, b = (low.get_parameter(f"lora_{name}.default.weight") for name in "AB")
    rank, alpha = 2, 3.0
    assert a.shape[0] == b.shape[1] == rank
    product = (b.flatten(1) @ a.flatten(1)).view_as(plain.get_parameter("weight"))
    state = dict(plain.state_dict()) | {"weight": plain.get_parameter("weight") + alpha / rank * product}
    inputs = images(layer)
    torch.testing.assert_close(low(inputs), torch.func.functional_call(plain, state, (inputs,)))


def test_lora_leaves_convolutions_with_groups_frozen() -> None:
    pytest.importorskip("peft")
    blocks = adapted("lora", *LAYERS)
    adapts = [any(weight.requires_grad for weight in layer.parameters()) for layer in blocks]
    assert adapts == [name not in ("depth-wise", "grouped") for name in LAYERS]


def test_lora_takes_names_as_a_whole() -> None:
    """peft matches endings of names in a list: "1" would be "0.1" too, which here it can't adapt."""
    pytest.importorskip("peft")
    blocks = nn.ModuleList([nn.Sequential(nn.ReLU(), LAYERS["grouped"]()), LAYERS["linear"]()])
    ADAPTATIONS["lora"].apply(blocks.requires_grad_(False), {})
    assert not any(weight.requires_grad for weight in blocks[0].parameters())


@pytest.mark.parametrize("bound", range(0, 1000, 37))
def test_manual_freezing_trains_the_longest_end_within_the_bound(bound: int) -> None:
    blocks = layers(*LAYERS)
    ADAPTATIONS["manual_freezing"].apply(blocks, {"weights": bound})
    sizes = [sum(weight.numel() for weight in layer.parameters()) for layer in blocks]
    trains = [all(weight.requires_grad for weight in layer.parameters()) for layer in blocks]
    assert [any(weight.requires_grad for weight in layer.parameters()) for layer in blocks] == trains, "whole layers"
    assert trains == sorted(trains), "an end of the network"
    first = len(trains) - sum(trains)
    assert sum(sizes[first:]) <= bound
    assert first == 0 or sum(sizes[first - 1 :]) > bound


def test_the_two_ends_of_freezing() -> None:
    for method, expected in (("fine_tuning", True), ("feature_extractor", False), ("norm_only", False)):
        assert {weight.requires_grad for weight in adapted(method, *LAYERS).parameters()} == {expected}
    assert [method for method, adaptation in ADAPTATIONS.items() if not adaptation.norms] == ["feature_extractor"]


@pytest.mark.parametrize("method", ADAPTATIONS)
def test_an_unknown_setting_is_refused_with_the_known(method: str) -> None:
    known = {"lora": "it has rank, alpha", "manual_freezing": "it has weights"}.get(method, "it has none")
    with pytest.raises(ValueError, match=f"{method} has no setting width; {known}"):
        ADAPTATIONS[method].apply(layers("conv"), SETTINGS.get(method, {}) | {"width": 1})


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("lora", {"rank": 2.5}, "rank must be a whole number of at least 1, not 2.5"),
        ("lora", {"rank": 0}, "rank must be a whole number of at least 1, not 0"),
        ("lora", {"rank": "4"}, "rank must be a number, not '4'"),
        ("lora", {"alpha": True}, "alpha must be a number, not True"),
        ("manual_freezing", {}, "give the setting weights"),
        ("manual_freezing", {"weights": -1}, "weights must be at least 0, not -1"),
    ],
)
def test_a_wrong_setting_is_named(method: str, settings: dict[str, Setting], message: str) -> None:
    with pytest.raises(ValueError, match=f"{method}: {message}"):
        ADAPTATIONS[method].apply(layers("conv"), settings)
