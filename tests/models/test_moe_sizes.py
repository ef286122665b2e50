"""Parameters and FLOPs of networks with experts, against the paper's own figures where those can be met."""

from functools import cache

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.accounting import count_flops
from models.sharing.moe import MoeModel
from models.spec import BackboneSpec, ModelSpec, Route, Setting
from tests.models.task_cases import spec as task_spec

SWIN, DAVIT = "swin_{}_patch4_window7_224", "davit_{}"
SIZES = ("tiny", "small", "base")
THREE = ("imagenet", "coco", "ade20k")
PRINTED: dict[str, Setting] = {"placement": "printed", "expert_bias": False, "router_width": 2}
LAYERS = 11  # with experts in networks of small size


@cache
def build(
    backbone: str, datasets: tuple[str, ...] = ("one",), routes: tuple[Route, ...] = (), **settings: Setting
) -> MoeModel:
    """A network without storage: its shapes are all that is asked for."""
    spec = ModelSpec(
        strategy="moe",
        backbone=BackboneSpec(name=backbone, locations=4, size=(224, 224)),
        tasks=tuple(task_spec("classification", name=f"on_{name}", dataset=name) for name in datasets),
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        settings=tuple(sorted(settings.items())),
        routes=routes,
    )
    with torch.device("meta"):
        return MoeModel(spec)


def millions(model: MoeModel) -> float:
    return model.backbone_params() / 1e6


def macs(model: MoeModel, *, attention: bool) -> float:
    """Billions of multiply-adds of one image: of linear layers and convolutions, or of attention's products."""
    with torch.no_grad(), torch.device("meta"), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 3, 224, 224))
    counts = counter.get_flop_counts()["Global"]
    layers = {torch.ops.aten.addmm, torch.ops.aten.mm, torch.ops.aten.convolution}
    return sum(count for kind, count in counts.items() if (kind not in layers) == attention) / 2e9


@pytest.mark.parametrize(
    ("family", "expected", "printed"),
    [
        (SWIN, (27.519, 48.837, 86.743), (27.5, 48.9, 86.7)),
        (DAVIT, (27.591, 48.977, 86.929), (27.6, 49.0, 86.8)),
    ],
)
def test_dense(family: str, expected: tuple[float, ...], printed: tuple[float, ...]) -> None:
    """Tab. 1, MTHL.D; without classifier, to which timm's DaViT has the last normalisation belong."""
    for size, parameters, paper in zip(SIZES, expected, printed, strict=True):
        model = build(family.format(size), placement=())
        norm = 2 * model.shapes[-1][0] if family == DAVIT else 0
        assert millions(model) + norm / 1e6 == pytest.approx(parameters, abs=0.0005)
        assert millions(model) == pytest.approx(paper, rel=0.01)


def test_the_texts_placement() -> None:
    """Experts in every MLP, in every second of base: by no means what Tab. 1 prints. Routers aside."""
    for size, expected in zip(SIZES, (62.0, 111.6, 142.5), strict=True):
        model = build(SWIN.format(size), placement="text", expert_bias=False)
        routers = sum(layer.router("one").weight.numel() for layer in model.layers.values())
        assert millions(model) - routers / 1e6 == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("family", "expected", "printed"),
    [(SWIN, (51.3, 89.3, 158.5), (50.9, 89.1, 158.3)), (DAVIT, (51.3, 89.4, 158.7), (51.2, 88.9, 158.7))],
)
def test_the_printed_placement(family: str, expected: tuple[float, ...], printed: tuple[float, ...]) -> None:
    """Tab. 1, MTHL: routers of three data sets, no biases of experts."""
    for size, parameters, paper in zip(SIZES, expected, printed, strict=True):
        found = millions(build(family.format(size), THREE, **PRINTED))
        assert found == pytest.approx(parameters, abs=0.05)
        assert found == pytest.approx(paper, rel=0.01)


@pytest.mark.parametrize(("experts", "expected", "paper"), [(6, 33.5, 33.4), (9, 42.3, 42.3), (12, 51.2, 51.2)])
def test_the_number_of_experts(experts: int, expected: float, paper: float) -> None:
    """Tab. A3; by the digits with one router of one output an expert."""
    one = build(DAVIT.format("tiny"), experts=experts, placement="printed", expert_bias=False)
    assert millions(one) == pytest.approx(expected, abs=0.05)
    assert millions(build(DAVIT.format("tiny"), THREE, experts=experts, **PRINTED)) == pytest.approx(paper, rel=0.01)


@pytest.mark.parametrize(("own", "expected"), [(0, 0.36), (1, 5.37), (2, 10.39)])
def test_what_is_trained_for_a_new_data_set(own: int, expected: float) -> None:
    """Tab. 3, Train. Par.: 0.4, 5.4, 10.4. A new router has the size of the three that were there, one each."""
    routes = tuple(
        Route(dataset=name, top_k=4, experts=(tuple(range(12)),) * LAYERS, own=(tuple(range(own)),) * LAYERS)
        for name in THREE
    )
    model = build(SWIN.format("small"), THREE, routes, learns="own", **PRINTED)
    assert model.trained_params() / 1e6 == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize(
    ("backbone", "layers", "attention"), [(SWIN.format("tiny"), 4.36, 0.140), (DAVIT.format("tiny"), 4.41, 0.116)]
)
def test_dense_flops(backbone: str, layers: float, attention: float) -> None:
    """Linear layers and convolutions as the paper counts; `count_flops` adds the products inside attention."""
    model = build(backbone, placement=())
    assert macs(model, attention=False) == pytest.approx(layers, rel=0.003)
    assert macs(model, attention=True) == pytest.approx(attention, abs=0.0005)
    with torch.device("meta"):
        total = count_flops(model, torch.zeros(1, 3, 224, 224)) / 2e9
    assert total == pytest.approx(macs(model, attention=False) + macs(model, attention=True))
