"""One small network of each strategy with random weights, as after training; one of "lwf" is kept as one of "moe"."""

from collections.abc import Callable

import torch

from models.expert_growth import join
from models.sharing import SharedModel
from models.sharing.branched import BranchedModel
from models.spec import BackboneSpec, ModelSpec
from tests.models.task_cases import COLUMNS
from tests.models.task_cases import spec as task_spec
from tests.models.test_adapted import build as build_adapted
from tests.models.test_branched import TREES, shaken
from tests.models.test_branched import build as build_tree
from tests.models.test_expert_growth import build_base, learn
from tests.models.test_taps_bundle import build as build_taps


def every_kind() -> SharedModel:
    """A network with a task of every kind."""
    torch.manual_seed(0)
    model = ModelSpec(
        strategy="branched",
        backbone=BackboneSpec(name="test_byobnet", locations=3, size=(48, 64)),
        tasks=tuple(task_spec(kind, name=f"my {kind}", head_width=8) for kind in COLUMNS),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        groups=((0,) * len(COLUMNS),) * 3,
    )
    return moderate(shaken(BranchedModel(model)))


def experts() -> SharedModel:
    """Two data sets that choose among all experts, one that has some of its own."""
    base = build_base()
    return moderate(join(base, [learn(base, "c", "both")]))


def moderate(network: SharedModel) -> SharedModel:
    """Weights about as large as trained ones: with larger ones rounding grows from layer to layer."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.3 if parameter.ndim > 1 else 1)
    return network


NETWORKS: dict[str, Callable[[], SharedModel]] = {
    "branched": every_kind,
    "branched, tokens": lambda: moderate(shaken(build_tree(TREES[4], "test_vit"))),
    "taps": lambda: build_taps("test_resnet", 4),
    "adapted": lambda: build_adapted("piggyback", "test_resnet").eval(),
    "moe": experts,
}
