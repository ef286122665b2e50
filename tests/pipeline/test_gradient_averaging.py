"""Gradients are those of DistributedDataParallel(find_unused_parameters=True), to the bit, by less travel."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline import gradient_averaging
from pipeline.gradient_averaging import GradientAveraging, start_alike

pytestmark = pytest.mark.slow
HEADS = ("a", "b", "c")
WORLD = 2


@dataclass(frozen=True, kw_only=True)
class Step:
    """What each rank draws, whether the penalty is on, and who goes over its branches the other way round."""

    draws: Sequence[str]  # of each rank, a letter a draw
    late: bool = False
    reversed_on: int | None = None


SAME = ("aa", "bb", "aa", "cc", "bb", "aa")
CASES: dict[str, Sequence[Step]] = {
    "one data set for all ranks": [Step(draws=pair) for pair in SAME],
    "one for each rank": [Step(draws=pair) for pair in ("ab", "cc", "ba", "ca", "aa", "bc", "ab")],
    "several for each rank": [
        Step(draws=pair) for pair in (("aab", "bbc"), ("ca", "ab"), ("bbb", "bcb"), ("ab", "ca"))
    ],
    "a penalty that starts late": [Step(draws=pair, late=turn > 2) for turn, pair in enumerate(SAME)],
    "a penalty that ends": [Step(draws=pair, late=turn < 3) for turn, pair in enumerate(SAME)],
    "branches in another order": [Step(draws=pair, reversed_on=turn % 2) for turn, pair in enumerate(SAME)],
}


class Branched(nn.Module):
    """A trunk, two branches and a gate for a penalty that all use, heads that they don't, and what nobody uses."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.frozen = nn.Conv2d(8, 8, 1).requires_grad_(False)
        self.gate, self.never = nn.Parameter(torch.ones(8)), nn.Parameter(torch.ones(3))
        self.branches = nn.ModuleList(nn.Linear(8, 7) for _ in range(2))
        self.heads = nn.ModuleDict({name: nn.Sequential(nn.Linear(7, 50), nn.Linear(50, 5)) for name in HEADS})
        self.precise = nn.Linear(8, 2, dtype=torch.float64)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor, name: str, late: bool, backwards: bool) -> tuple[Tensor, Tensor]:
        x = self.frozen(self.trunk(x)).relu().mean((2, 3))
        found = {place: self.branches[place](x).tanh() for place in ((1, 0) if backwards else (0, 1))}
        out = self.heads[name](found[0] * found[1]).square().mean() + self.precise(x.double()).mean()
        return out, self.gate.square().sum() if late else torch.zeros(())


def objective(outputs: tuple[Tensor, Tensor], draws: int) -> Tensor:
    return sum(outputs, start=torch.zeros(())) / draws


def images(rank: int, turn: int, place: int) -> Tensor:
    return torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(100 * turn + 10 * rank + place))


def network() -> Branched:
    torch.manual_seed(1)
    return Branched().train()


def steps_of_ddp(rank: int, case: Sequence[Step]) -> list[dict[str, Tensor]]:
    model = network()
    forward = DistributedDataParallel(model, find_unused_parameters=True, broadcast_buffers=False)
    optimiser = sgd(model)
    found = []
    for turn, step in enumerate(case):
        optimiser.zero_grad()
        *before, last = enumerate(step.draws[rank])
        with forward.no_sync():
            for place, name in before:
                outputs = forward(images(rank, turn, place), name, step.late, step.reversed_on == rank)
                objective(outputs, len(step.draws[rank])).backward()
        outputs = forward(images(rank, turn, last[0]), last[1], step.late, step.reversed_on == rank)
        objective(outputs, len(step.draws[rank])).backward()
        found.append(gradients(model))
        optimiser.step()
    return [*found, model.state_dict()]


def steps_of_ours(rank: int, case: Sequence[Step], sent: list[int]) -> list[dict[str, Tensor]]:
    model = network()
    averaging, optimiser = GradientAveraging(model.parameters(), WORLD), sgd(model)
    found = []
    with counted(sent):
        for turn, step in enumerate(case):
            optimiser.zero_grad()
            averaging.begin({name for draws in step.draws for name in draws})
            for place, name in enumerate(step.draws[rank]):
                averaging.draw(name, last=place + 1 == len(step.draws[rank]))
                outputs = model(images(rank, turn, place), name, step.late, step.reversed_on == rank)
                objective(outputs, len(step.draws[rank])).backward()
            averaging.finish()
            found.append(gradients(model))
            optimiser.step()
            sent.append(0)
    return [*found, model.state_dict()]


def counted(sent: list[int]) -> Any:
    """Adds up in the last number of a list the bytes of gradients that are exchanged."""
    reduce = dist.all_reduce

    def counting(tensor: Tensor, *arguments: Any, **named: Any) -> Any:
        sent[-1] += tensor.nbytes * tensor.is_floating_point()
        return reduce(tensor, *arguments, **named)

    return mock.patch.object(dist, "all_reduce", counting)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9, weight_decay=0.01)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    wait = timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD, timeout=wait)
    for name, case in CASES.items():
        for limit in (gradient_averaging.BUCKET_BYTES, 600):
            with mock.patch.object(gradient_averaging, "BUCKET_BYTES", limit):
                sent = [0]
                ours = steps_of_ours(rank, case, sent)
            torch.save((ours, steps_of_ddp(rank, case), sent[:-1]), f"{folder}/{name}, {limit}.{rank}")
    torch.manual_seed(rank)
    drawn = Branched()
    start_alike(drawn)
    torch.save(drawn.state_dict(), f"{folder}/start.{rank}")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(_rank, args=(str(folder),), nprocs=WORLD)
    return folder


@pytest.mark.parametrize("limit", [gradient_averaging.BUCKET_BYTES, 600])
@pytest.mark.parametrize("case", list(CASES))
def test_gradients_are_those_of_ddp(case: str, limit: int, ranks: Path) -> None:
    """In every step the same parameters have one, and it is the same to the bit; so are the weights at the end."""
    first, second = (torch.load(ranks / f"{case}, {limit}.{rank}") for rank in range(WORLD))
    for ours, ddp, other in zip(first[0], first[1], second[0], strict=True):
        assert ours.keys() == ddp.keys() == other.keys()
        for name, value in ddp.items():
            assert torch.equal(ours[name], value), name
            assert torch.equal(ours[name], other[name]), name
            assert ours[name].stride() == value.stride(), name


@pytest.mark.parametrize("case", list(CASES))
def test_what_no_rank_uses_has_no_gradient(case: str, ranks: Path) -> None:
    (*found, _), _, _ = torch.load(ranks / f"{case}, 600.0")
    for step, gradients in zip(CASES[case], found, strict=True):
        drawn = {name for draws in step.draws for name in draws}
        assert {name for name in HEADS if f"heads.{name}.0.weight" in gradients} == drawn
        assert ("gate" in gradients) == step.late
        assert not {"never", "frozen.weight"} & gradients.keys()


@pytest.mark.parametrize("case", [case for case in CASES if case != "a penalty that ends"])
def test_a_step_exchanges_what_its_data_sets_use(case: str, ranks: Path) -> None:
    sizes = {name: gradient_averaging._room(parameter) for name, parameter in network().named_parameters()}
    (*found, _), _, sent = torch.load(ranks / f"{case}, 600.0")
    assert sent == [sum(sizes[name] for name in gradients) for gradients in found]


def test_ranks_start_alike(ranks: Path) -> None:
    one, other = (torch.load(ranks / f"start.{rank}") for rank in range(WORLD))
    torch.manual_seed(0)
    for name, value in Branched().state_dict().items():
        assert torch.equal(one[name], value)
        assert torch.equal(other[name], value)
