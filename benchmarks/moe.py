"""A layer of experts against a dense MLP of as many FLOPs, then networks.    python -m benchmarks.moe    (6 minutes)

Forward and backward at the token counts and channels of Swin-T's stages; 12 experts, 4 per token, hidden channels C,
router and biases included. Beside the dense MLP: a masked loop over all experts, tokens sorted once and split by expert
as in Mod-Squad, torch's grouped product; all give the same outputs. Then whole networks, dense and with experts. On a
GPU all is under bf16 autocast and the clock counts, else CPU time of one thread.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.lines import Goal, Line, figure, longer, note, show
from benchmarks.networks import classifiers
from benchmarks.timing import Times, in_turn
from models import expert_dispatch
from models.expert_dispatch import sort_by_expert
from models.experts import MoEMlp
from models.sharing.moe import MoeModel
from models.spec import ModelSpec, Setting

STAGES = ((3136, 96), (784, 192), (196, 384), (49, 768))  # tokens of an image of 224 pixels, channels
BATCHES = (1, 8)
EXPERTS, TOP_K = 12, 4
BACKBONE, SIZE, NETWORK_BATCH = "swin_tiny_patch4_window7_224", (224, 224), 4
ROUNDS = 8
DATASET = "photos"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CLOCK = "wall" if DEVICE == "cuda" else "cpu"
REPEATS = 20 if DEVICE == "cuda" else 1  # in a round
GOALS = {(8, 384): Goal(most=1.45), (1, 192): Goal(most=1.65), (1, 384): Goal(most=1.65)}  # by batch and channels
MODEL_GOAL = Goal(most=1.35 if DEVICE == "cuda" else 1.2)
OTHERS = ("loop with masks", "sorted and split", "grouped product")

Mix = Callable[..., Tensor]


def lines() -> Iterator[Line]:
    torch.set_num_threads(1)
    for batch in BATCHES:
        for tokens, channels in STAGES:
            yield from _layer_lines(batch, tokens, channels)
    networks = _networks()
    images = torch.rand(NETWORK_BATCH, 3, *SIZE, device=DEVICE)
    yield from _network_lines("step", _steps(networks, images))
    yield from _network_lines("inference", _predictions(networks, images))


def _layer_lines(batch: int, tokens: int, channels: int) -> Iterator[Line]:
    case = f"layer, {batch * tokens} × {channels}"
    note(case)
    layers = _layers(channels)
    x, grad = (torch.randn(batch * tokens, channels, device=DEVICE) for _ in range(2))
    kept = {name: _kept(layer, x) for name, layer in layers.items()}
    ways = {name: partial(_train, layer, x.requires_grad_(), grad) for name, layer in layers.items()}
    times = _timed(ways)
    yield longer(5, case, "dense MLP", times["ours"], times["dense"], clock=CLOCK, goal=_goal(batch, channels))
    for name in OTHERS:
        yield longer(5, case, name, times["ours"], times[name], clock=CLOCK)
    yield figure(5, f"{case}: kept for the backward pass", "dense MLP", [kept["ours"] / kept["dense"]], "×")


def _goal(batch: int, channels: int) -> Goal | None:
    if DEVICE == "cuda":
        return Goal(most=1.5) if channels >= 384 and batch > 1 else None
    return GOALS.get((batch, channels))


def _network_lines(title: str, ways: Mapping[str, Callable[[], object]]) -> Iterator[Line]:
    times = _timed(ways)
    for name in list(ways)[1:]:
        goal = MODEL_GOAL if title == "step" else None
        what = f"{title}, {BACKBONE}, batch {NETWORK_BATCH}: {name}"
        yield longer(5, what, "the dense network", times[name], times["dense"], clock=CLOCK, goal=goal)


def _timed(ways: Mapping[str, Callable[[], object]]) -> dict[str, Times]:
    return in_turn({name: partial(_repeat, way) for name, way in ways.items()}, ROUNDS)


def _repeat(way: Callable[[], object]) -> None:
    for _ in range(REPEATS):
        way()
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def _layers(channels: int) -> dict[str, nn.Module]:
    layer = MoEMlp(channels, channels, {DATASET: (range(EXPERTS), TOP_K)}).to(DEVICE)
    torch.nn.init.normal_(layer.router(DATASET).weight)
    layers: dict[str, nn.Module] = {
        "dense": Mlp(channels, 4 * channels).to(DEVICE),
        "ours": layer,
        "loop with masks": _Layer(layer, _masked),
        "sorted and split": _Layer(layer, _split),
        "grouped product": _Layer(layer, _grouped),
    }
    x, grad = (torch.randn(100, channels, device=DEVICE) for _ in range(2))
    expected = _through(layer, x, grad)
    for name in OTHERS:
        for found, wanted in zip(_through(layers[name], x, grad), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    return layers


def _through(layer: nn.Module, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The output in full precision, and the input's gradient."""
    x = x.clone().requires_grad_()
    y = layer(x)
    (of_x,) = torch.autograd.grad(y, x, grad)
    return y.detach(), of_x


def _kept(layer: nn.Module, x: Tensor) -> int:
    """Bytes of what a forward pass keeps for the backward one, weights and input not counted."""
    there = {tensor.untyped_storage().data_ptr() for tensor in (x, *layer.parameters())}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _forward(layer, x.detach().requires_grad_())
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in there)


def _forward(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
        return layer(x)


def _train(layer: nn.Module, x: Tensor, grad: Tensor) -> None:
    layer.zero_grad()
    x.grad = None
    y = _forward(layer, x)
    y.backward(grad.to(y.dtype))


class _Layer(nn.Module):
    """Our layer's router and experts, mixed in another way."""

    def __init__(self, layer: MoEMlp, mix: Mix) -> None:
        super().__init__()
        self.router, self.mix = layer.router(DATASET), mix
        self.experts = nn.ModuleList(layer.expert(number) for number in range(EXPERTS))

    def forward(self, x: Tensor) -> Tensor:
        gate, choice, _ = self.router(x)
        return self.mix(x, gate, choice, list(self.experts))


def _masked(x: Tensor, gate: Tensor, choice: Tensor, experts: Sequence[Mlp]) -> Tensor:
    y = torch.zeros_like(x)
    for place, expert in enumerate(experts):
        token, slot = (choice == place).nonzero(as_tuple=True)
        mixed = expert(x[token]) * gate[token, slot, None]
        y = y.index_add(0, token, mixed.to(y.dtype))
    return y


def _split(x: Tensor, gate: Tensor, choice: Tensor, experts: Sequence[Mlp]) -> Tensor:
    order = choice.flatten().argsort()
    token = order // choice.shape[1]
    sizes = choice.flatten().bincount(minlength=len(experts)).tolist()
    parts = [expert(part) for expert, part in zip(experts, x[token].split(sizes), strict=True)]
    mixed = torch.cat(parts) * gate.flatten()[order, None]
    return torch.zeros_like(x).index_add(0, token, mixed.to(x.dtype))


def _grouped(x: Tensor, gate: Tensor, choice: Tensor, experts: Sequence[Mlp]) -> Tensor:
    kind = torch.get_autocast_dtype(DEVICE) if torch.is_autocast_enabled(DEVICE) else x.dtype
    states = [{name: weight.to(kind) for name, weight in expert.named_parameters()} for expert in experts]
    first, second = [state["fc1.weight"] for state in states], [state["fc2.weight"] for state in states]
    biases = [(state["fc1.bias"], state["fc2.bias"]) for state in states]
    order = sort_by_expert(choice, len(experts))
    with torch.autocast(DEVICE, enabled=False):
        return expert_dispatch._grouped(x.to(kind), gate.to(kind), order, first, second, biases)


def _networks() -> dict[str, MoeModel]:
    placements: dict[str, Setting] = {"dense": (), "experts as printed": "printed", "experts as in text": "text"}
    return {name: MoeModel(_spec(placement)).to(DEVICE) for name, placement in placements.items()}


def _spec(placement: Setting) -> ModelSpec:
    settings = (("experts", EXPERTS), ("placement", placement), ("top_k", TOP_K))
    return classifiers("moe", BACKBONE, SIZE[0], ("one",), settings=settings)


def _steps(networks: dict[str, MoeModel], images: Tensor) -> dict[str, Callable[[], object]]:
    labels = torch.arange(len(images), device=DEVICE) % 10
    return {
        name: partial(_step, network, torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True), images, labels)
        for name, network in networks.items()
    }


def _step(network: MoeModel, optimiser: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
        output = network.train()(images)["one"]
    optimiser.zero_grad()
    (F.cross_entropy(output.float(), labels) + 0.01 * network.penalty(["one"])).backward()
    optimiser.step()
    network.finish_step()


def _predictions(networks: dict[str, MoeModel], images: Tensor) -> dict[str, Callable[[], object]]:
    return {name: partial(_predict, network, images) for name, network in networks.items()}


@torch.inference_mode()
def _predict(network: MoeModel, images: Tensor) -> None:
    with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
        network.eval()(images)


if __name__ == "__main__":
    show(lines())
