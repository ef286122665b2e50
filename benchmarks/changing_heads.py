"""Two ranks whose steps use different heads, beside DDP.    python -m benchmarks.changing_heads    (about 4 minutes)

Two processes of this machine train one network, a thread each, over gloo: each step runs the head of the data set that
it draws, by the paper's weights {3, 2, 1} (MTHL, Sec. 4.1). Beside pipeline.gradient_averaging stand DDP with
find_unused_parameters=True, which exchanges the gradients of all heads and searches the graph for those unused, and the
same steps of ranks that exchange nothing, the floor. All gradients are DDP's, to the bit. Times are the slower rank's.
"""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.lines import Goal, Line, figure, longer, note, show
from benchmarks.timing import Times, in_turn
from models.branch_tree import BranchTree
from models.sharing.branched import BranchedModel
from models.spec import BackboneSpec, Column, ModelSpec, TaskSpec
from pipeline.gradient_averaging import GradientAveraging

WORLD = 2
ROUNDS = 6
DRAWS = "photos", "boxes", "photos", "regions", "photos", "boxes"  # of a round
OURS, DDP, ALONE = "gradient averaging", "DDP, find_unused_parameters=True", "no exchange"
CLASSES = tuple(map(str, range(100)))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A backbone with three heads, for images of so many pixels, so many in a rank's batch."""

    backbone: str
    pixels: int
    batch: int
    heavy: bool

    def __str__(self) -> str:
        heads = "linear, RetinaNet and UperNet heads" if self.heavy else "three linear heads"
        return f"{self.backbone} {self.pixels} px, {heads}, batch {self.batch} a rank"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Of one case: times by way, the bytes of gradients that a rank sends in a round of ours, and of all parameters."""

    times: Mapping[str, Times]
    sent: int
    parameters: int


CASES = (
    Case(backbone="resnet18", pixels=64, batch=8, heavy=False),
    Case(backbone="swin_tiny_patch4_window7_224", pixels=64, batch=2, heavy=True),
)


def lines() -> Iterator[Line]:
    for case in CASES:
        note(str(case))
        with TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(_rank, args=(case, folder), nprocs=WORLD)
            found: Measured = torch.load(Path(folder) / "0", weights_only=False)
        times = found.times
        yield longer(9, f"{len(DRAWS)} steps, {case}", DDP, times[OURS], times[DDP], clock="wall", goal=Goal(most=1.0))
        yield longer(9, f"{len(DRAWS)} steps, {case}", ALONE, times[OURS], times[ALONE], clock="wall")
        yield longer(9, f"{len(DRAWS)} steps of DDP, {case}", ALONE, times[DDP], times[ALONE], clock="wall")
        yield figure(9, f"bytes sent, {case}", DDP, [found.sent / len(DRAWS) / found.parameters], "×")


def _rank(rank: int, case: Case, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    networks = _networks(case)
    ours, ddp, alone = networks.values()
    averaging = GradientAveraging(ours.parameters(), WORLD)
    wrapped = DistributedDataParallel(ddp, find_unused_parameters=True, broadcast_buffers=False)
    images = torch.rand(case.batch, 3, case.pixels, case.pixels, generator=torch.Generator().manual_seed(rank))
    optimisers = {name: _optimiser(network) for name, network in networks.items()}
    steps: dict[str, Callable[[str], None]] = {
        OURS: partial(_step_of_ours, averaging, ours, optimisers[OURS], images),
        DDP: partial(_step, wrapped, optimisers[DDP], images),
        ALONE: partial(_step, alone, optimisers[ALONE], images),
    }
    _agree(steps, networks)
    ways = {name: partial(_round, step) for name, step in steps.items()}
    sent = _sent(ways[OURS])
    times = in_turn(ways, ROUNDS)
    parameters = sum(parameter.nbytes for parameter in ours.parameters())
    if rank == 0:
        torch.save(Measured(times=times, sent=sent, parameters=parameters), f"{folder}/{rank}")
    dist.destroy_process_group()


def _networks(case: Case) -> dict[str, BranchedModel]:
    torch.manual_seed(0)
    network = BranchedModel(_spec(case)).train()
    return {OURS: network, DDP: deepcopy(network), ALONE: deepcopy(network)}


def _spec(case: Case) -> ModelSpec:
    kinds: Mapping[str, Mapping[str, Any]] = {
        "photos": {"kind": "classification", "column": Column(layout="class", classes=CLASSES)},
        "boxes": {"kind": "detection", "column": Column(layout="boxes", classes=CLASSES), "head_width": 256},
        "regions": {
            "kind": "segmentation",
            "column": Column(layout="mask", classes=CLASSES),
            "head": "upernet",
            "head_width": 512,
        },
    }
    tasks = tuple(
        TaskSpec(name=name, dataset=name, column_name="label", **(kind if case.heavy else kinds["photos"]))
        for name, kind in kinds.items()
    )
    return ModelSpec(
        strategy="branched",
        backbone=BackboneSpec(name=case.backbone, locations=4, size=(case.pixels, case.pixels)),
        tasks=tasks,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        groups=BranchTree.shared(len(tasks), 4).groups,
    )


def _optimiser(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), lr=1e-4, fused=True)


def _step(forward: nn.Module, optimiser: torch.optim.Optimizer, images: Tensor, drawn: str) -> None:
    optimiser.zero_grad()
    forward(images, [drawn])[drawn].square().mean().backward()
    optimiser.step()


def _step_of_ours(
    averaging: GradientAveraging, network: nn.Module, optimiser: torch.optim.Optimizer, images: Tensor, drawn: str
) -> None:
    optimiser.zero_grad()
    averaging.begin([drawn])
    averaging.draw(drawn, last=True)
    network(images, [drawn])[drawn].square().mean().backward()
    averaging.finish()
    optimiser.step()


def _round(step: Callable[[str], None]) -> None:
    """The last to end ends it for both."""
    for drawn in DRAWS:
        step(drawn)
    dist.barrier()


def _agree(steps: Mapping[str, Callable[[str], None]], networks: Mapping[str, nn.Module]) -> None:
    for drawn in DRAWS:
        for name in (OURS, DDP):
            torch.manual_seed(0)  # of dropped paths
            steps[name](drawn)
        for mine, theirs in zip(networks[OURS].parameters(), networks[DDP].parameters(), strict=True):
            if mine.grad is None or theirs.grad is None:
                assert mine.grad is theirs.grad
            else:
                assert torch.equal(mine.grad, theirs.grad)


def _sent(way: Callable[[], None]) -> int:
    """The bytes of gradients that a rank gives to be added up."""
    with mock.patch.object(dist, "all_reduce", wraps=dist.all_reduce) as reduce:
        way()
    return sum(call.args[0].nbytes for call in reduce.call_args_list)


if __name__ == "__main__":
    show(lines())
