"""A merged TAPS network against a plain one, in inference.    python -m benchmarks.merged    (about 2 minutes)

Every other layer is the task's own, and all normalisation. The merged network is to give the logits of a plain one with
the same weights to the bit, in the same time, x 1.00 ± 0.02. Not merged, the task's tensors are put in place for each
forward pass. On a GPU all is under bf16 autocast and the clock counts, else CPU time of one thread.
"""

from collections.abc import Iterator
from functools import partial
from time import perf_counter
from typing import Any

import timm
import torch
from torch import Tensor, nn

from benchmarks.lines import Goal, Line, figure, longer, show
from benchmarks.networks import classifiers
from benchmarks.timing import in_turn
from models.backbone import Block
from models.sharing.taps import TapsModel

CASES = (("resnet50", 1), ("vit_small_patch16_224", 1))
SIZE = 224
TASK = "one"
ROUNDS = 150
SWITCHES = 100
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CLOCK = "wall" if DEVICE == "cuda" else "cpu"
REPEATS = 20 if DEVICE == "cuda" else 1  # in a round
GOAL = Goal(least=0.98, most=1.02)


class _Plain(nn.Module):
    """timm's own network with a task's weights, and the task's head on it."""

    def __init__(self, taps: TapsModel) -> None:
        super().__init__()
        self.network: Any = timm.create_model(taps.spec.backbone.name, num_classes=0)
        self.network.load_state_dict(_effective(taps))
        last = taps.base[-1]
        assert isinstance(last, Block)
        self.as_map, self.head, self.normalise = last.as_map, taps.heads[0], taps.normalise

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        state = self.network.forward_features(self.normalise(images))
        return {TASK: self.head([self.as_map(state)], images.shape[-2:])}


def lines() -> Iterator[Line]:
    torch.set_num_threads(1)
    for backbone, batch in CASES:
        yield from _compared(_shaken(backbone), torch.rand(batch, 3, SIZE, SIZE, device=DEVICE))


@torch.inference_mode()
def _compared(taps: TapsModel, images: Tensor) -> Iterator[Line]:
    plain = _Plain(taps).to(DEVICE).eval()
    where = f"{taps.spec.backbone.name} {SIZE} px, batch {len(images)}{', bf16' if DEVICE == 'cuda' else ''}"
    for what, ours, goal in (("merged TAPS network", taps.merged(), GOAL), ("TAPS network, not merged", taps, None)):
        assert torch.equal(_logits(ours, images), _logits(plain, images))
        # Two at a time: of three, that in the middle would never find its weights in the cache.
        times = in_turn({"ours": partial(_repeat, ours, images), "plain": partial(_repeat, plain, images)}, ROUNDS)
        beside = "timm's network with the same weights"
        yield longer(3, f"{what}, {where}", beside, times["ours"], times["plain"], clock=CLOCK, goal=goal)
    switches = [_switch(taps) for _ in range(ROUNDS)]
    yield figure(3, f"another task's tensors to put in place, {taps.spec.backbone.name}", "", switches, "ms")


@torch.no_grad()
def _shaken(backbone: str) -> TapsModel:
    """A network whose task differs from the base in every tensor that is its own."""
    taps = TapsModel(classifiers("taps", backbone, SIZE, (TASK,)))
    own = taps.of()
    own.scores[::2] = 0.0
    for tensor in (*own.weights, *own.norms.parameters()):
        tensor.mul_(1 + 0.1 * torch.randn_like(tensor))
    return taps.to(DEVICE).eval()


def _effective(taps: TapsModel) -> dict[str, Tensor]:
    """The weights of Eq. 1 and 2, layer by layer, by their names in timm's network."""
    own, state = taps.of(), taps.base.state_dict()
    weights = iter(own.weights)
    for layer, score in zip(own.layers, own.scores, strict=True):
        found = {name: next(weights) for name in layer.parameters}
        state |= found if score >= own.threshold else {}
    state |= dict(own.norm_tensors())
    return {_timm_name(taps.base, name): tensor for name, tensor in state.items()}


def _timm_name(base: nn.ModuleList, name: str) -> str:
    """A tensor's name in timm's network; a ViT's tokens and position table stand at its top."""
    location, _, inside = name.partition(".")
    path, _, leaf = inside.rpartition(".")
    block = base[int(location)]
    assert isinstance(block, Block)
    return f"{block.origins[path]}.{leaf}" if path in block.origins else leaf


def _logits(network: nn.Module, images: Tensor) -> Tensor:
    with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
        return network(images)[TASK]


def _repeat(network: nn.Module, images: Tensor) -> None:
    for _ in range(REPEATS):
        _logits(network, images)
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def _switch(taps: TapsModel) -> float:
    """Milliseconds on the clock."""
    began = perf_counter()
    for _ in range(SWITCHES):
        taps.of().tensors(taps.base)
    return 1000 * (perf_counter() - began) / SWITCHES


if __name__ == "__main__":
    show(lines())
