"""Which MLPs carry experts, by the names that timm gives them."""

from functools import cache
from itertools import groupby

import pytest
import timm
import torch
from timm.layers import Mlp

from models.expert_placement import place_experts

SWIN, DAVIT = "swin_{}_patch4_window7_224", "davit_{}"
DEPTHS = {"tiny": (2, 2, 6, 2), "small": (2, 2, 18, 2), "base": (2, 2, 18, 2)}  # MLPs by stage, of both families
SIZES = list(DEPTHS)
THIRDS = (1, 3, 5, 7, 9, 11, 13, 15, 17)
PRINTED = {"tiny": (2, 5), "small": THIRDS, "base": THIRDS}


@cache
def stages_of(backbone: str) -> list[list[str]]:
    with torch.device("meta"):
        network = timm.create_model(backbone, num_classes=0)
    names = [name for name, module in network.named_modules() if isinstance(module, Mlp)]
    return [list(group) for _, group in groupby(names, key=lambda name: name.split(".")[:2])]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", [SWIN, DAVIT])
def test_text(family: str, size: str) -> None:
    """Every MLP; in base networks every second (Sec. 4.1)."""
    stages = stages_of(family.format(size))
    assert tuple(map(len, stages)) == DEPTHS[size]
    every = [name for stage in stages for name in stage]
    expected = every[1::2] if size == "base" else every
    assert place_experts("text", stages, family.format(size)) == expected


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", [SWIN, DAVIT])
def test_printed(family: str, size: str) -> None:
    """The last stage, and 2 of 6 or 9 of 18 of the third, evenly spread and the last among them."""
    stages = stages_of(family.format(size))
    expected = [*(stages[2][place] for place in PRINTED[size]), *stages[3]]
    assert place_experts("printed", stages, family.format(size)) == expected


def test_names() -> None:
    assert place_experts("printed", stages_of(SWIN.format("tiny")), "swin_tiny") == [
        "layers.2.blocks.2.mlp",
        "layers.2.blocks.5.mlp",
        "layers.3.blocks.0.mlp",
        "layers.3.blocks.1.mlp",
    ]
    assert place_experts("printed", stages_of(DAVIT.format("tiny")), "davit_tiny") == [
        "stages.2.blocks.1.0.mlp",
        "stages.2.blocks.2.1.mlp",
        "stages.3.blocks.0.0.mlp",
        "stages.3.blocks.0.1.mlp",
    ]


def test_vision_transformers() -> None:
    """Their layers count as stages of one MLP: all of them by the text, chosen ones by patterns."""
    stages = stages_of("vit_tiny_patch16_224")
    assert place_experts("text", stages, "vit_tiny_patch16_224") == [f"blocks.{n}.mlp" for n in range(12)]
    with pytest.raises(
        ValueError, match="'printed' is for backbones of four stages; vit_tiny_patch16_224 has 12: give"
    ):
        place_experts("printed", stages, "vit_tiny_patch16_224")


def test_patterns() -> None:
    """In the network's order; the last pattern that matches decides."""
    stages = stages_of(DAVIT.format("tiny"))
    spatial = place_experts(["stages.3.*", "stages.2.*", "!*.1.mlp"], stages, "davit_tiny")
    assert spatial == [*(f"stages.2.blocks.{n}.0.mlp" for n in range(3)), "stages.3.blocks.0.0.mlp"]
    again = place_experts(("*", "!*", "stages.0.*"), stages, "davit_tiny")
    assert again == stages[0]
    assert place_experts((), stages, "davit_tiny") == []


def test_refusals() -> None:
    stages = [["a.0.mlp"], ["a.1.mlp"]]
    with pytest.raises(ValueError, match="placement 'every': use one of text, printed, or a list of patterns"):
        place_experts("every", stages, "mine")
    with pytest.raises(ValueError, match=r"placement \['b\*'\]: no MLP of mine matches; its MLPs: a.0.mlp, a.1.mlp"):
        place_experts(["b*"], stages, "mine")
    with pytest.raises(ValueError, match="placement 'text': no MLP of resnet50 matches; its MLPs: none"):
        place_experts("text", [], "resnet50")
