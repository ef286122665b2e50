"""Some tasks' inference through one network against one each.    python -m benchmarks.branched    (about 3 minutes)

Five classification tasks: a tree in which they leave one another at different depths, and a TAPS bundle as it is loaded
to predict, with every other layer a task's own and, in a second form, the first two locations the base's for all. The
single networks are cut out of these; both sides give the same logits to the bit. The claim: the ratio of their times
is at most 1.1 x that of their FLOPs.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.lines import Goal, Line, longer, show
from benchmarks.networks import classifiers
from benchmarks.timing import in_turn
from models.accounting import count_flops
from models.sharing import SharedModel
from models.sharing.branched import BranchedModel
from models.sharing.taps import TapsModel

NAMES = ("one", "two", "three", "four", "five")
TREE = ((0, 0, 0, 0, 0), (0, 0, 0, 1, 1), (0, 0, 1, 2, 2), (0, 1, 2, 3, 4))
TREES = (
    ("resnet50", 224, 1),
    ("resnet50", 224, 8),
    ("resnet18", 64, 16),
    ("vit_small_patch16_224", 224, 2),
    ("convnext_tiny", 224, 2),
)
BUNDLES = (("resnet50", 224, 1), ("resnet18", 64, 16), ("vit_small_patch16_224", 224, 2))
COMMON = (0, 2)  # locations at which the tasks of a bundle agree
ROUNDS = 5
GOAL = Goal(most=1.1)


def lines() -> Iterator[Line]:
    torch.set_num_threads(1)
    for backbone, size, batch in TREES:
        tree = BranchedModel(classifiers("branched", backbone, size, NAMES, groups=TREE))
        branches = "-".join(str(max(row) + 1) for row in TREE)
        yield _compared(f"tree of {branches} branches, {backbone} {size} px", tree, batch)
    for backbone, size, batch in BUNDLES:
        for common in COMMON:
            apart = f"tasks apart from location {common + 1} on"
            yield _compared(f"TAPS bundle, {apart}, {backbone} {size} px", _bundle(backbone, size, common), batch)


@torch.inference_mode()
def _compared(what: str, network: SharedModel, batch: int) -> Line:
    """The time of one network for all tasks, over what the FLOPs make of the time of the tasks' own networks."""
    network.eval()
    single = {name: network.only(name) for name in NAMES}
    images = torch.rand(batch, 3, *network.spec.backbone.size)

    def one_by_one() -> dict[str, Tensor]:
        return {name: single[name](images)[name] for name in NAMES}

    whole = network(images)
    assert all(torch.equal(value, whole[name]) for name, value in one_by_one().items())
    times = in_turn({"one": lambda: network(images), "single": one_by_one}, ROUNDS)
    flops = count_flops(network, images) / sum(count_flops(alone, images) for alone in single.values())
    beside = f"{len(NAMES)} networks' time × {flops:.3f}, the ratio of FLOPs"
    return longer(4, f"{what}, batch {batch}", beside, times["one"], times["single"].scaled(flops), goal=GOAL)


@torch.no_grad()
def _bundle(backbone: str, size: int, common: int) -> TapsModel:
    """Tasks with weights and normalisation of their own, but for the first `common` locations."""
    network = TapsModel(classifiers("taps", backbone, size, NAMES))
    shared = tuple(f"{location}." for location in range(common))
    for name in NAMES:
        own = network.of(name)
        for place, layer in enumerate(own.layers):
            if place % 2 or layer.parameters[0].startswith(shared):
                own.scores[place] = 0.0
        for weight in own.weights:
            weight.mul_(1 + 0.1 * torch.randn_like(weight))
        for path, norm in zip(own.paths, own.norms, strict=True):
            if not path.startswith(shared):
                for parameter in norm.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
    network.drop_closed()
    return network


if __name__ == "__main__":
    show(lines())
