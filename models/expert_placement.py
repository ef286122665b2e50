"""Which MLPs of a backbone become mixtures of experts (MTHL, Sec. 4.1).

"text"     what the paper says: every MLP; in networks of base size every second
"printed"  what its parameter counts fit: every MLP of the last stage and some of the one before, 9 of 18, else a third
patterns   glob patterns over the MLPs' names in the timm network; the last that matches decides, "!" leaves out
"""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

DEEP = 18  # MLPs in the third stage of networks of small and base size


def place_experts(placement: str | Sequence[str], stages: Sequence[Sequence[str]], backbone: str) -> list[str]:
    """Map a placement and the names of the MLPs by stage to the names of those that carry experts, in their order.

    A DaViT block has two MLPs, after its spatial and its channel attention; both are candidates. ValueError where none
    is left.
    """
    every = [name for stage in stages for name in stage]
    if not isinstance(placement, str):
        chosen = [name for name in every if _matches(name, placement)]
    elif placement in PLACEMENTS:
        chosen = PLACEMENTS[placement](stages, backbone)
    else:
        raise ValueError(f"placement {placement!r}: use one of {', '.join(PLACEMENTS)}, or a list of patterns")
    if placement and not chosen:
        asked = placement if isinstance(placement, str) else list(placement)
        raise ValueError(f"placement {asked!r}: no MLP of {backbone} matches; its MLPs: {', '.join(every) or 'none'}")
    return chosen


def _text(stages: Sequence[Sequence[str]], backbone: str) -> list[str]:
    every = [name for stage in stages for name in stage]
    return every[1::2] if "base" in backbone else every


def _printed(stages: Sequence[Sequence[str]], backbone: str) -> list[str]:
    if len(stages) != 4:
        raise ValueError(
            f"placement 'printed' is for backbones of four stages; {backbone} has {len(stages)}: give patterns"
        )
    third, last = stages[2:]
    count = len(third) // 2 if len(third) >= DEEP else len(third) // 3
    return [*(third[(i + 1) * len(third) // count - 1] for i in range(count)), *last]


PLACEMENTS: Mapping[str, Callable[[Sequence[Sequence[str]], str], list[str]]] = {"text": _text, "printed": _printed}


def _matches(name: str, patterns: Sequence[str]) -> bool:
    matched = False
    for pattern in patterns:
        if fnmatchcase(name, pattern.removeprefix("!")):
            matched = not pattern.startswith("!")
    return matched
