"""The settings of strategy "moe", as a spec holds them and as a value."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from models.spec import Setting

MOST_EXPERTS = 4096  # of a layer


@dataclass(frozen=True, kw_only=True)
class MoeSettings:
    """How a network's experts are made and what of it learns.

    experts, top_k   of each layer, and how many a token gets (MTHL, Sec. 4.1)
    hidden           an expert's hidden channels; 0 = the MLP's over `top_k`, so that a token costs what it did
    expert_bias      whether experts have biases
    router_width     outputs of a router per expert: 2 = a noise while training, see `models.experts.Router`
    placement        a name in, or patterns for, `models.expert_placement`; () = no experts, a dense network
    momentum         of the estimates behind the penalty (Sec. 3.2)
    remembered       data sets that stay in the estimates though the network has no task on them
    upcycled         experts start as slices of the MLP that they replace
    adapter          width of a bottleneck after every mixture (Houlsby et al. 2019); 0 = none
    learns           all, or own: routers, experts of a data set's own, adapters and heads; the rest is frozen
    """

    experts: int = 12
    top_k: int = 4
    hidden: int = 0
    expert_bias: bool = True
    router_width: int = 1
    placement: str | tuple[str, ...] = "printed"
    momentum: float = 0.95
    remembered: tuple[str, ...] = ()
    upcycled: bool = False
    adapter: int = 0
    learns: Literal["all", "own"] = "all"


def read_moe_settings(settings: Sequence[tuple[str, Setting]]) -> MoeSettings:
    """Map a spec's (name, value) pairs to the value. ValueError names those that MoE does not have."""
    known = [field.name for field in fields(MoeSettings)]
    if unknown := sorted({name for name, _ in settings} - set(known)):
        raise ValueError(f"MoE has no setting {', '.join(unknown)}; it has {', '.join(known)}")
    values: dict[str, Any] = dict(settings)
    if not 1 <= values.get("experts", 1) <= MOST_EXPERTS:
        raise ValueError(f"experts {values['experts']}: a layer has 1 to {MOST_EXPERTS}")
    return MoeSettings(**values)
