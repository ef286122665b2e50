"""A step of TAPS against plain fine-tuning and the paper's own code.    python -m benchmarks.taps    (about 7 minutes)

The same network, images and optimiser; one task on a frozen base. "Paper" adds 1[s >= τ] δ to the weights in every
layer's forward pass (Algorithm 2, App. F). The claims: a step takes at most 1.10 x the time of plain fine-tuning, a
merged network 1.00 x that of a plain one. On a GPU steps run under bf16 autocast and the clock counts, else CPU time.
"""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from time import process_time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from benchmarks.timing import Times, in_turn
from models.sharing import SharedModel
from models.sharing.branched import BranchedModel
from models.sharing.taps import TapsModel
from models.spec import BackboneSpec, Column, ModelSpec, TaskSpec

CASES = (("resnet50", 8), ("vit_small_patch16_224", 8))
ROUNDS = 4
SIZE = (224, 224)
TASK = "one"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
REPEATS = 20 if DEVICE == "cuda" else 1  # steps in a round
THRESHOLD = 0.1

Step = Callable[[], None]


def main() -> None:
    torch.set_num_threads(1)
    where = f"{torch.cuda.get_device_name()}, bf16" if DEVICE == "cuda" else "1 thread"
    print(f"taps: {where}; median ratio of {ROUNDS} rounds to plain fine-tuning (ratio of the fastest rounds)")
    for backbone, batch in CASES:
        images = torch.rand(batch, 3, *SIZE, device=DEVICE)
        networks = _networks(backbone)
        print(f"{backbone} {SIZE[0]} px, batch {batch}")
        _train(networks, images)
        _predict(networks, images)


def _networks(backbone: str) -> dict[str, SharedModel]:
    paper = BranchedModel(_spec("branched", backbone))
    _adapt(paper.blocks)
    networks: dict[str, SharedModel] = {
        "plain": BranchedModel(_spec("branched", backbone)),
        "TAPS, all gates open": TapsModel(_spec("taps", backbone)),
        "TAPS, every other open": TapsModel(_spec("taps", backbone)),
        "paper, all gates open": paper,
    }
    half = networks["TAPS, every other open"]
    assert isinstance(half, TapsModel)
    with torch.no_grad():
        half.of().scores[::2] = 0.05
    return {name: network.to(DEVICE) for name, network in networks.items()}


def _spec(strategy: str, backbone: str) -> ModelSpec:
    column = Column(layout="class", classes=tuple("abcdefghij"))
    task = TaskSpec(name=TASK, kind="classification", dataset="photos", column_name=TASK, column=column)
    return ModelSpec(
        strategy=strategy,
        backbone=BackboneSpec(name=backbone, locations=4, size=SIZE),
        tasks=(task,),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        groups=((0,),) * 4 if strategy == "branched" else (),
    )


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

    def forward(self, states: Tensor) -> Tensor:
        gate: Any = _Binarise.apply(self.score)
        weight = self.layer.weight + gate * self.residual
        if isinstance(self.layer, nn.Conv2d):
            return self.layer._conv_forward(states, weight, self.layer.bias)
        return functional.linear(states, weight, self.layer.bias)


def _adapt(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Conv2d | nn.Linear):
            setattr(module, name, _Adaptive(child))
        else:
            _adapt(child)


def _train(networks: dict[str, SharedModel], images: Tensor) -> None:
    labels = torch.arange(len(images), device=DEVICE) % 10
    steps: dict[str, Step] = {}
    for name, network in networks.items():
        trained = [parameter for parameter in network.train().parameters() if parameter.requires_grad]
        optimiser = torch.optim.SGD(trained, lr=1e-5, momentum=0.9, fused=True)
        steps[name] = partial(_step, network, optimiser, images, labels)
    times = in_turn({name: partial(_repeat, step) for name, step in steps.items()}, ROUNDS)
    memory = {name: _state(steps[name]) + _rise(steps[name]) for name in steps}  # after the rounds: momentum is there
    for name in networks:
        print(f"  step, {name}: {_compared(times, name)}; {memory[name] / 2**20:.0f} MiB")


def _step(network: SharedModel, optimiser: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
        output = network(images)[TASK]
    optimiser.zero_grad()
    (functional.cross_entropy(output.float(), labels) + network.penalty([TASK])).backward()
    optimiser.step()


def _repeat(step: Step) -> None:
    for _ in range(REPEATS):
        step()
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def _compared(times: dict[str, Times], name: str) -> str:
    mine, base = (_spent(times[way]) for way in (name, "plain"))
    ratios = [one / other for one, other in zip(mine, base, strict=True)]
    return f"{min(mine) / REPEATS:.3f} s, x {median(ratios):.3f} ({min(mine) / min(base):.3f})"


def _spent(times: Times) -> Sequence[float]:
    return times.wall if DEVICE == "cuda" else times.cpu


def _state(step: Step) -> int:
    """Bytes that stay between steps: weights, statistics, momentum; gradients are counted where a step makes them."""
    network, optimiser = step.args[:2]  # pyright: ignore[reportFunctionMemberAccess]
    optimiser.zero_grad()
    momentum = [value for state in optimiser.state.values() for value in state.values() if isinstance(value, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in (*network.state_dict().values(), *momentum))


def _rise(step: Step) -> int:
    """Bytes by which a step's peak is above its beginning."""
    if DEVICE == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    results: Any = record.profiler.kineto_results  # pyright: ignore[reportOptionalMemberAccess]
    events = [event for event in results.events() if event.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak


@torch.inference_mode()
def _predict(networks: dict[str, SharedModel], images: Tensor) -> None:
    taps = networks["TAPS, all gates open"].eval()
    assert isinstance(taps, TapsModel)
    ways = {
        "plain": networks["plain"].eval(),
        "TAPS, merged": taps.merged(),
        "TAPS, not merged": taps,
        "paper, not merged": networks["paper, all gates open"].eval(),
    }
    times = in_turn({name: partial(_repeat, partial(network, images)) for name, network in ways.items()}, ROUNDS)
    for name in ways:
        print(f"  inference, {name}: {_compared(times, name)}")
    started = process_time()
    for _ in range(100):
        taps.of().tensors(taps.base)
    print(f"  another task's tensors to put in place: {10 * (process_time() - started):.2f} ms")


if __name__ == "__main__":
    main()
