"""Gates on the layers of any network: which there are, their straight-through gradients, and the paper's own form."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any

import pytest
import timm
import torch
import torchvision
from timm.layers import RmsNorm2d
from torch import Tensor, nn
from torch.func import functional_call

from models.gating import GatedLayer, TaskWeights, gated_layers, is_norm

THRESHOLD = 0.1


class Odd(nn.Module):
    """Keys and values of widths of their own, a norm that torch does not know, one layer in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, kdim=3, vdim=3, add_bias_kv=True)
        self.norm = RmsNorm2d(12)
        self.rms = nn.RMSNorm(12)
        self.twice = nn.Conv1d(12, 12, 3, padding=1)
        self.again = self.twice

    def forward(self, images: Tensor) -> Tensor:
        # Of a tensor that isn't contiguous torch's matmul rounds otherwise where the weights want a gradient.
        tokens = images.flatten(2).permute(2, 0, 1).contiguous()
        queries = tokens.repeat(1, 1, 4)
        found = self.rms(self.attention(queries, tokens, tokens, need_weights=False)[0]).permute(1, 2, 0)
        return self.norm(self.again(self.twice(found)).unflatten(2, images.shape[2:]))


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(12, 2, 20, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.Conv2d(3, 12, 8, stride=8), nn.Flatten(2), _Transpose(), layer)


class _Transpose(nn.Module):
    def forward(self, states: Tensor) -> Tensor:
        return states.transpose(1, 2)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "timm resnet": lambda: timm.create_model("test_resnet", num_classes=5),
    "timm byobnet": lambda: timm.create_model("test_byobnet", num_classes=5),
    "timm vit": lambda: timm.create_model("test_vit", num_classes=5, img_size=32),
    "timm mobilenet": lambda: timm.create_model("mobilenetv3_small_050", num_classes=5),
    "timm convnext": lambda: timm.create_model("test_convnext", num_classes=5),
    "torchvision resnet18": lambda: torchvision.models.resnet18(num_classes=5),
    "torchvision densenet": lambda: torchvision.models.DenseNet(4, (2, 2, 1, 1), 8, num_classes=5),
    "torchvision mobilenet": lambda: torchvision.models.mobilenet_v2(num_classes=5, width_mult=0.25, dropout=0.0),
    "torchvision vit": lambda: torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 24, num_classes=5),
    "torch encoder": _encoder,
    "odd": Odd,
}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def run(network: nn.Module, tensors: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """One pass with tensors in place. With `tie_weights` torch would leave a layer of two names with the new ones."""
    return functional_call(network, dict(tensors), (images,), tie_weights=False)


def weights(network: nn.Module, *, frozen: bool = True, patterns: Sequence[str] = ("*",), **more: Any) -> TaskWeights:
    layers = gated_layers(network, patterns)
    return TaskWeights(network, layers, **{"threshold": THRESHOLD, "score": 0.15, "frozen": frozen, **more})


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = NETWORKS[name]()
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.add_(0.05 * torch.rand_like(value))
    return network.eval().requires_grad_(False)


def move(own: TaskWeights, opened: Callable[[int], bool]) -> list[bool]:
    """Give a task δ, norms and gates as after training."""
    with torch.no_grad():
        for tensor in (*own.weights, *own.norms.parameters()):
            tensor.add_(0.02 * torch.randn_like(tensor))
        for norm in own.norms.modules():
            if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
                norm.running_mean.add_(0.1)
        own.scores.copy_(torch.tensor([0.2 if opened(i) else 0.05 for i in range(len(own.layers))]))
    return own.gates()


@pytest.mark.parametrize(
    ("name", "number"),
    [("resnet50", 53), ("resnet34", 36), ("densenet121", 120), ("vit_small_patch16_224", 48)],
)
def test_the_papers_numbers_of_layers(name: str, number: int) -> None:
    network = timm.create_model(name, num_classes=0)
    found = gated_layers(network, ("*", "!*patch_embed*"))
    assert len(found) == number
    assert len({layer.name for layer in found}) == number
    sizes = [network.get_parameter(layer.parameters[0]).dim() for layer in found]
    assert min(sizes) >= 2, "a weight leads, its bias follows"


def test_globs() -> None:
    network = timm.create_model("test_vit", num_classes=0, img_size=32)
    names = [layer.name for layer in gated_layers(network, ("*",))]
    assert names[0] == "patch_embed.proj"
    attention = gated_layers(network, ("blocks.*.attn.*",))
    assert {layer.name.rsplit(".", 1)[1] for layer in attention} == {"qkv", "proj"}
    assert all(layer.kind == "Linear" for layer in attention)
    assert attention[0] == GatedLayer("blocks.0.attn.qkv", "Linear", tuple(attention[0].parameters))
    some = [layer.name for layer in gated_layers(network, ("*", "!*.mlp.*", "blocks.0.mlp.fc1"))]
    assert some == [name for name in names if ".mlp." not in name or name == "blocks.0.mlp.fc1"], "the last decides"
    renamed = gated_layers(network, ("stem",), {"patch_embed.proj": "stem"})
    assert renamed == [GatedLayer("stem", "Conv2d", ("patch_embed.proj.weight", "patch_embed.proj.bias"))]
    with pytest.raises(ValueError, match="no layer of the backbone matches nose, mouth"):
        gated_layers(network, ("*", "nose", "mouth", "!ear"))
    with pytest.raises(ValueError, match="leave no layer of the backbone to gate"):
        gated_layers(network, ("*", "!*"))


def test_a_score_at_the_threshold_is_open() -> None:
    own = weights(make("timm resnet"), score=THRESHOLD)
    assert all(own.gates())
    with torch.no_grad():
        own.scores.copy_(torch.nextafter(own.scores, torch.zeros(())))
    assert not any(own.gates())


@pytest.mark.parametrize("name", list(NETWORKS))
@pytest.mark.parametrize("frozen", [True, False])
def test_any_network_takes_a_tasks_tensors(name: str, frozen: bool) -> None:
    """The oracle is a copy of the network whose weights are changed in place."""
    network = make(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    own = weights(network, frozen=frozen)
    with torch.no_grad():
        assert torch.equal(run(network, own.tensors(network), IMAGES), network(IMAGES)), "δ is zero"
        gates = move(own, lambda place: place % 2 == 0)
        expected = deepcopy(network)
        places = iter(own.weights)
        for layer, is_open in zip(own.layers, gates, strict=True):
            for key in layer.parameters:
                tensor = next(places)
                if is_open:
                    expected.get_parameter(key).copy_(tensor if frozen else before[key] + tensor)
        for path, norm in zip(own.paths, own.norms, strict=True):
            expected.get_submodule(path).load_state_dict(norm.state_dict())
        found = run(network, own.tensors(network), IMAGES)
        assert torch.equal(found, expected(IMAGES))
        assert not torch.equal(found, network(IMAGES))
    with torch.enable_grad():
        tracked = run(network.train(), own.tensors(network), IMAGES)
    torch.testing.assert_close(tracked, expected.train()(IMAGES), msg="the same where gradients are wanted")
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items()), "nothing stays behind"


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_open_weight_learns_and_the_base_does_not(name: str) -> None:
    network = make(name).train()
    own = weights(network)
    gates = move(own, lambda place: place % 3 != 1)
    run(network, own.tensors(network), IMAGES).square().sum().backward()
    assert own.scores.grad is not None
    assert own.scores.grad.count_nonzero() == len(gates), "closed gates hear of their δ too"
    places = iter(own.weights)
    for layer, is_open in zip(own.layers, gates, strict=True):
        gradients = [next(places).grad for _ in layer.parameters]
        assert gradients[0] is not None
        assert bool(gradients[0].any()) == is_open, layer
    assert all(parameter.grad is not None for parameter in own.norms.parameters())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_what_is_a_normalisation_layer() -> None:
    norms = [nn.BatchNorm2d(2, affine=False), nn.LayerNorm(2), nn.GroupNorm(1, 2), nn.InstanceNorm2d(2), nn.RMSNorm(2)]
    assert all(is_norm(module) for module in norms)
    block = torchvision.ops.Conv2dNormActivation(3, 4)
    assert [is_norm(module) for module in block.modules()] == [False, False, True, False]
    assert not is_norm(nn.LocalResponseNorm(2))


def small_network() -> nn.Sequential:
    torch.manual_seed(3)
    network = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3)),
        *(nn.GroupNorm(2, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 8), nn.Tanh()),
        nn.Linear(8, 4),
    )
    return network.requires_grad_(False)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("is_open", [True, False])
def test_gradients_are_those_of_the_relaxed_function(frozen: bool, is_open: bool) -> None:
    """w + s δ (Sec. 3) at s = I: by central differences in every entry of w, δ and s, with numbers of 64 bits."""
    network = small_network().double().requires_grad_(not frozen)
    own = weights(network, frozen=frozen).double()
    move(own, lambda _place: is_open)
    images = torch.randn(3, 3, 9, 9, dtype=torch.float64)
    norms = dict(own.norm_tensors())
    names = [name for layer in own.layers for name in layer.parameters]
    base = {name: network.get_parameter(name).detach().clone() for name in names}
    delta = {
        name: (tensor - base[name] if frozen else tensor).detach().clone()
        for name, tensor in zip(names, own.weights, strict=True)
    }
    strength = torch.full((len(own.layers),), float(is_open), dtype=torch.float64)

    def relaxed() -> Tensor:
        at = {key: place for place, layer in enumerate(own.layers) for key in layer.parameters}
        tensors = {name: base[name] + strength[at[name]] * delta[name] for name in names}
        return run(network, norms | tensors, images).square().sum()

    loss = run(network, own.tensors(network), images).square().sum()
    loss.backward()
    with torch.no_grad():
        torch.testing.assert_close(loss, relaxed())
        assert own.scores.grad is not None
        torch.testing.assert_close(own.scores.grad, differences(relaxed, strength), rtol=1e-6, atol=1e-7)
        for name, tensor in zip(names, own.weights, strict=True):
            assert tensor.grad is not None
            torch.testing.assert_close(tensor.grad, differences(relaxed, delta[name]), rtol=1e-6, atol=1e-7)
            of_base = network.get_parameter(name).grad
            if frozen:
                assert of_base is None
            else:
                assert of_base is not None
                torch.testing.assert_close(of_base, differences(relaxed, base[name]), rtol=1e-6, atol=1e-7)


def differences(function: Callable[[], Tensor], at: Tensor, step: float = 1e-5) -> Tensor:
    """The gradient of a function at a tensor that it reads, by moving each entry there and back."""
    found, flat = torch.zeros_like(at), at.view(-1)
    for place in range(flat.numel()):
        middle = flat[place].item()
        flat[place] = middle + step
        above = function()
        flat[place] = middle - step
        found.view(-1)[place] = (above - function()) / (2 * step)
        flat[place] = middle
    return found


@pytest.mark.parametrize("frozen", [True, False])
def test_a_scores_gradient_is_the_weights_gradient_along_delta(frozen: bool) -> None:
    """Through autograd of the network itself; strides need not be those of a contiguous tensor."""
    network = small_network().requires_grad_(not frozen)
    own = weights(network, frozen=frozen)
    move(own, lambda place: place % 2 == 0)
    images = torch.randn(3, 3, 9, 9)
    for form in (torch.contiguous_format, torch.channels_last):
        network, own = network.to(memory_format=form), own.to(memory_format=form)  # pyright: ignore[reportCallIssue]
        own.zero_grad()
        names = [layer.parameters for layer in own.layers]
        base = dict(network.named_parameters())
        with torch.no_grad():
            effective = base | own.tensors(network)
        used = {name: effective[name].detach().clone().requires_grad_() for row in names for name in row}
        norms = dict(own.norm_tensors())
        inputs = images.to(memory_format=form)
        run(network, norms | used, inputs).square().sum().backward()
        run(network, own.tensors(network), inputs).square().sum().backward()
        places, expected = iter(own.weights), []
        for row in names:
            along = torch.zeros((), dtype=torch.float64)
            for name in row:
                tensor, gradient = next(places).detach().double(), used[name].grad
                assert gradient is not None
                along += (gradient.double() * (tensor - base[name].detach().double() if frozen else tensor)).sum()
            expected.append(along)
        assert own.scores.grad is not None
        torch.testing.assert_close(own.scores.grad.double(), torch.stack(expected), rtol=1e-4, atol=1e-5)


class _Binarise(torch.autograd.Function):
    """The indicator of Algorithm 1 (App. F), written anew."""

    @staticmethod
    def forward(_ctx: Any, score: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (score >= THRESHOLD).to(score.dtype)

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient


class Plain(nn.Module):
    """Algorithm 2 (App. F) for a whole network: w + 1[s >= τ] δ in every forward pass; δ, s and the norms train."""

    def __init__(self, network: nn.Module, layers: Sequence[GatedLayer]) -> None:
        super().__init__()
        self.network, self.layers = deepcopy(network), layers
        self.names = [name for layer in layers for name in layer.parameters]
        self.delta = nn.ParameterList(torch.zeros_like(self.network.get_parameter(name)) for name in self.names)
        self.scores = nn.ParameterList(torch.full((1,), 0.15, dtype=self.delta[0].dtype) for _ in layers)
        self.norms = [module for module in self.network if isinstance(module, nn.BatchNorm2d | nn.GroupNorm)]  # pyright: ignore[reportGeneralTypeIssues]
        for norm in self.norms:
            norm.requires_grad_(True)

    def forward(self, images: Tensor) -> Tensor:
        scores = [score for score, layer in zip(self.scores, self.layers, strict=True) for _ in layer.parameters]
        tensors = {
            name: self.network.get_parameter(name) + _Binarise.apply(score) * delta  # pyright: ignore[reportOperatorIssue]
            for name, score, delta in zip(self.names, scores, self.delta, strict=True)
        }
        return run(self.network, tensors, images)


OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9),
    "nesterov": lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=3e-3, weight_decay=0.0),
}


def train(form: nn.Module, loss: Callable[[Tensor], Tensor], optimiser: str, decay: list[nn.Parameter]) -> list[Any]:
    """60 steps of one of the two forms; a spring on each score, whose rest changes sides, closes and opens gates."""
    scores = [parameter for name, parameter in form.named_parameters() if "scores" in name]
    rest = [p for p in form.parameters() if p.requires_grad and all(p is not other for other in (*scores, *decay))]
    groups = [{"params": rest}, {"params": scores, "lr": 0.05}, {"params": decay, "weight_decay": 5e-4}]
    stepper = OPTIMISERS[optimiser]([group for group in groups if group["params"]])
    images = torch.randn(60, 8, 3, 9, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gates = []
    for step in range(60):
        value = torch.cat([score.view(-1) for score in scores])
        gates.append((value >= THRESHOLD).tolist())
        rest_at = torch.tensor([0.6 if (step + 5 * place) // 12 % 2 else -0.4 for place in range(len(value))])
        stepper.zero_grad()
        (loss(images[step].to(value.dtype)) + 5 * (value - rest_at).square().sum()).backward()
        stepper.step()
    return gates


@pytest.mark.parametrize("precision", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("optimiser", "weight_decay"), [("sgd", 0.0), ("sgd", 5e-4), ("nesterov", 0.0), ("adamw", 0.0)]
)
def test_training_effective_weights_is_training_delta(
    precision: torch.dtype, optimiser: str, weight_decay: float
) -> None:
    """The form that adds nothing in a step beside the paper's: the same weights, the same gates at every step."""
    network = small_network().to(precision).train()
    own = weights(network, weight_decay=weight_decay).to(precision)
    plain = Plain(network, own.layers).train()

    def loss(outputs: Tensor) -> Tensor:
        return (outputs - torch.linspace(-2, 3, 4, dtype=outputs.dtype)).square().mean()

    found = train(own, lambda images: loss(run(network, own.tensors(network), images)), optimiser, [])
    decayed = list(plain.delta) if weight_decay else []
    expected = train(plain, lambda images: loss(plain(images)), optimiser, decayed)
    assert found == expected
    toggles = [sum(one != other for one, other in pairwise(row)) for row in zip(*found, strict=True)]
    assert min(toggles) >= 2, f"every gate closes and opens again: {toggles}"
    near = {torch.float64: 1e-12, torch.float32: 1e-5}[precision]
    for name, tensor, delta in zip(plain.names, own.weights, plain.delta, strict=True):
        base = network.get_parameter(name)
        assert delta.abs().max() > 1e-3
        assert (tensor - base - delta).abs().max() <= near * max(base.abs().max(), delta.abs().max()), name
    for norm, other in zip(own.norms, plain.norms, strict=True):
        for key, value in norm.state_dict().items():
            torch.testing.assert_close(value, other.state_dict()[key], rtol=10 * near, atol=10 * near)


def test_a_closed_layers_momentum_coasts() -> None:
    """As δ's does where its gradient is a tensor of zeros: with momentum it moves on, by ever less."""
    network = small_network()
    own = weights(network)
    stepper = torch.optim.SGD(own.parameters(), lr=0.1, momentum=0.5)
    moved = []
    for step in range(4):
        with torch.no_grad():
            own.scores.fill_(0.2 if step == 0 else 0.0)
        before = own.weights[0].detach().clone()
        stepper.zero_grad()
        run(network, own.tensors(network), torch.ones(2, 3, 9, 9)).sum().backward()
        stepper.step()
        moved.append(own.weights[0].detach() - before)
    assert moved[0].abs().max() > 0
    for last, following in pairwise(moved):
        torch.testing.assert_close(following, last / 2, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("frozen", [True, False])
def test_beginning_again(frozen: bool) -> None:
    network, other = make("timm resnet"), make("timm resnet")
    own = weights(network, frozen=frozen)
    gates = move(own, lambda place: place % 2 == 0)
    with torch.no_grad():
        for value in other.state_dict().values():
            value.add_(1)
        own.restart(other)
        assert torch.equal(run(other, own.tensors(other), IMAGES), other(IMAGES))
    assert own.gates() == gates, "what was learnt of the gates stays"
