"""A step of TAPS against plain fine-tuning and the paper's own formulation.    python -m benchmarks.taps    (8 minutes)

The same network, images and optimiser; one task on a frozen base. "Paper" adds 1[s >= τ] δ to the weights in every
layer's forward pass (Algorithm 2, App. F); its outputs and its gradients have to be ours. The work on weights alone is
a step without images: gradients of the effective weights stand ready, gates and optimiser act on them. Memory is what
stays between steps and the rise within one. On a GPU steps run under bf16 autocast and the clock counts, else CPU time
of one thread.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.lines import Goal, Line, figure, longer, note, show
from benchmarks.memory import peak
from benchmarks.networks import LOCATIONS, classifiers
from benchmarks.timing import in_turn
from models.sharing import SharedModel
from models.sharing.branched import BranchedModel
from models.sharing.taps import TapsModel
from models.spec import ModelSpec

CASES = (("resnet50", 224, 8), ("vit_small_patch16_224", 224, 8), ("resnet18", 64, 32))  # backbone, pixels, batch
ROUNDS = 10
TASK = "one"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CLOCK, STEP_GOAL = ("wall", Goal(most=1.02)) if DEVICE == "cuda" else ("cpu", Goal(most=1.05))
REPEATS = 20 if DEVICE == "cuda" else 1  # steps in a round
THRESHOLD = 0.1
PLAIN, OPEN, HALF, PAPER = "plain", "TAPS, all gates open", "TAPS, every other gate open", "paper, all gates open"


def lines() -> Iterator[Line]:
    torch.set_num_threads(1)
    for backbone, pixels, batch in CASES:
        images = torch.rand(batch, 3, pixels, pixels, device=DEVICE)
        networks = _networks(backbone, pixels)
        _agree(networks, images)
        case = f"{backbone} {pixels} px, batch {batch}"
        note(case)
        yield from _steps(networks, images, case)
        yield from _weights_alone(networks, case)


def _networks(backbone: str, pixels: int) -> dict[str, SharedModel]:
    taps = {name: TapsModel(_spec("taps", backbone, pixels)) for name in (OPEN, HALF)}
    with torch.no_grad():
        taps[HALF].of().scores[::2] = 0.05
    paper = BranchedModel(_spec("branched", backbone, pixels))
    _adapt(paper.blocks)
    networks: dict[str, SharedModel] = {PLAIN: BranchedModel(_spec("branched", backbone, pixels)), **taps, PAPER: paper}
    for network in (networks[PLAIN], taps[HALF]):
        network.heads.load_state_dict(taps[OPEN].heads.state_dict())
    return {name: network.to(DEVICE) for name, network in networks.items()}


def _spec(strategy: str, backbone: str, pixels: int) -> ModelSpec:
    groups = ((0,),) * LOCATIONS if strategy == "branched" else ()
    return classifiers(strategy, backbone, pixels, (TASK,), groups=groups)


class _Binarise(torch.autograd.Function):
    """Algorithm 1: the gate, whose gradient goes straight through."""

    @staticmethod
    def forward(_ctx: Any, score: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (score >= THRESHOLD).float()

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient


class _Adaptive(nn.Module):
    """Algorithm 2: a frozen layer, its residual weights and its score."""

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.residual = nn.Parameter(torch.zeros_like(layer.weight))
        self.score = nn.Parameter(torch.tensor([0.15]))

    def weight(self) -> Tensor:
        gate: Any = _Binarise.apply(self.score)
        return self.layer.weight + gate * self.residual

    def forward(self, states: Tensor) -> Tensor:
        if isinstance(self.layer, nn.Conv2d):
            return self.layer._conv_forward(states, self.weight(), self.layer.bias)
        return functional.linear(states, self.weight(), self.layer.bias)


def _adapt(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Conv2d | nn.Linear):
            setattr(module, name, _Adaptive(child))
        else:
            _adapt(child)


def _agree(networks: dict[str, SharedModel], images: Tensor) -> None:
    """From the same weights both formulations give one output, and each residual and each score one gradient."""
    taps, paper = networks[OPEN], networks[PAPER]
    assert isinstance(taps, TapsModel)
    state = {
        f"blocks.{d}.0.{name}": tensor
        for d, block in enumerate(taps.base)
        for name, tensor in block.state_dict().items()
    }
    state |= {name: tensor for name, tensor in taps.state_dict().items() if name.startswith("heads.")}
    own = {name.replace(".layer.", "."): tensor for name, tensor in paper.state_dict().items()}
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)
    adaptive = {name.removesuffix(".layer"): layer for name, layer in _adaptives(paper).items()}
    weights = dict(zip((name for layer in taps.layers for name in layer.parameters), taps.of().weights, strict=True))
    for name, weight in weights.items():
        if name.endswith("weight"):
            with torch.no_grad():
                change = 0.01 * torch.randn_like(weight) * weight.std()
                weight.add_(change)
                adaptive[_path(name)].residual.copy_(change)
    given = {}
    for network in (taps, paper):
        network.double().eval()
        given[network] = network(images.double())[TASK]
        given[network].square().mean().backward()
    torch.testing.assert_close(given[taps], given[paper])
    scores = taps.of().scores.grad
    assert scores is not None
    for layer, score in zip(taps.layers, scores, strict=True):
        name = next(name for name in layer.parameters if name.endswith("weight"))
        residual, theirs = adaptive[_path(name)].residual.grad, adaptive[_path(name)].score.grad
        assert theirs is not None
        torch.testing.assert_close(weights[name].grad, residual)
        if len(layer.parameters) == 1:  # the paper's residual has no bias
            torch.testing.assert_close(score, theirs[0])
    for network in (taps, paper):
        network.zero_grad()
        network.float().train()


def _adaptives(network: nn.Module) -> dict[str, "_Adaptive"]:
    return {name: module for name, module in network.named_modules() if isinstance(module, _Adaptive)}


def _path(name: str) -> str:
    """A gated weight's layer in the branched network."""
    location, _, path = name.removesuffix(".weight").partition(".")
    return f"blocks.{location}.0.{path}"


def _optimiser(network: SharedModel) -> torch.optim.Optimizer:
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return torch.optim.SGD(trained, lr=1e-5, momentum=0.9, fused=True)


def _steps(networks: dict[str, SharedModel], images: Tensor, case: str) -> Iterator[Line]:
    labels = torch.arange(len(images), device=DEVICE) % 10
    steps = {
        name: partial(_step, network.train(), _optimiser(network), images, labels) for name, network in networks.items()
    }
    times = in_turn({name: partial(_repeat, step) for name, step in steps.items()}, ROUNDS)
    for name in (OPEN, HALF, PAPER):
        goal = None if name == PAPER else STEP_GOAL
        yield longer(2, f"step, {case}: {name}", "plain fine-tuning", times[name], times[PLAIN], clock=CLOCK, goal=goal)
    memory = {name: _state(step) + _rise(step) for name, step in steps.items()}  # after the rounds: momentum is there
    taps = networks[OPEN]
    assert isinstance(taps, TapsModel)
    gated = sum(tensor.numel() * tensor.element_size() for tensor in taps.of().state_dict().values())
    for name in (OPEN, PAPER):
        more = round((memory[name] - memory[PLAIN]) / gated, 2)  # a step's passing tensors differ by some kB
        goal = Goal(most=1.0) if name == OPEN else None
        what = f"memory of a step beyond plain fine-tuning's {memory[PLAIN] / 2**20:.0f} MiB, {case}: {name}"
        yield figure(2, what, f"the task's own layers, {gated / 2**20:.0f} MiB", [more], "×", goal)


def _step(network: SharedModel, optimiser: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
        output = network(images)[TASK]
    optimiser.zero_grad()
    (functional.cross_entropy(output.float(), labels) + network.penalty([TASK])).backward()
    optimiser.step()


def _repeat(step: Callable[[], None]) -> None:
    for _ in range(REPEATS):
        step()
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def _weights_alone(networks: dict[str, SharedModel], case: str) -> Iterator[Line]:
    taps, paper = networks[OPEN], networks[PAPER]
    assert isinstance(taps, TapsModel)
    names = [name for layer in taps.layers for name in layer.parameters]
    effective: dict[str, Callable[[], list[Tensor]]] = {
        PLAIN: list,
        OPEN: lambda: [found[name] for found in [taps.of().tensors(taps.base)] for name in names],
        PAPER: lambda: [layer.weight() for layer in _adaptives(paper).values()],
    }
    ways = {name: partial(_repeat, _on_weights(networks[name], way)) for name, way in effective.items()}
    times = in_turn(ways, 2 * ROUNDS)
    what = f"work on weights alone, {case}"
    yield longer(2, what, "the paper's", times[OPEN], times[PAPER], clock=CLOCK, goal=Goal(most=0.25))
    yield longer(2, what, "plain SGD's", times[OPEN], times[PLAIN], clock=CLOCK)
    parameters = REPEATS * sum(weight.numel() for weight in taps.of().weights)
    for name in (OPEN, PAPER):
        pairs = zip(times[name].of(CLOCK), times[PLAIN].of(CLOCK), strict=True)
        beyond = [(one - plain) / parameters * 1e9 for one, plain in pairs]
        yield figure(2, f"the same beyond plain SGD's, a gated weight: {name}", "", beyond, "ns")


class _Given(torch.autograd.Function):
    """Effective weights -> a loss whose gradients stand ready, and are held by nothing else, as in a real step."""

    @staticmethod
    def forward(ctx: Any, ready: list[list[Tensor]], *_weights: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.ready = ready
        return torch.zeros((), device=DEVICE)

    @staticmethod
    def backward(ctx: Any, _gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, *ctx.ready.pop()


def _on_weights(network: SharedModel, effective: Callable[[], list[Tensor]]) -> Callable[[], None]:
    """Gates and optimiser where all gradients stand ready: those of the effective weights, and of all other ones."""
    optimiser = _optimiser(network)
    weights = effective()
    ready = [[torch.randn_like(weight) for weight in weights] for _ in range((2 * ROUNDS + 1) * REPEATS)]
    gated = [parameter for name, parameter in network.named_parameters() if _is_gated(name)]
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)

    def step() -> None:
        for parameter in gated:
            parameter.grad = None
        if gated:
            loss: Any = _Given.apply(ready, *effective())
            loss.backward()
        optimiser.step()

    return step


def _is_gated(name: str) -> bool:
    return ".weights." in name or name.endswith((".scores", ".residual", ".score"))


def _state(step: "partial[None]") -> int:
    """Bytes that stay between steps: weights, statistics, momentum; gradients are counted where a step makes them."""
    network, optimiser = step.args[:2]
    optimiser.zero_grad()
    momentum = [value for state in optimiser.state.values() for value in state.values() if isinstance(value, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in (*network.state_dict().values(), *momentum))


def _rise(step: "partial[None]") -> int:
    """Bytes by which a step's peak is above its beginning."""
    if DEVICE == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    return peak(step)


if __name__ == "__main__":
    show(lines())
