"""A rank's noise is, to the bit, what one process draws for the rank's rows of the global batch."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import pytest
import timm
import torch
from timm.layers import DropPath
from torch import Tensor, nn

from models.heads import DENSE_HEADS, PooledHead
from models.rank_noise import Gaussian, RankNoise, RankRows, share_noise
from models.sharing import SHARING
from models.spec import BackboneSpec, ModelSpec
from tests.models import noisy_swin
from tests.models.task_cases import spec as task_spec

LAYERS = {
    "dropout": nn.Dropout(0.4),
    "in place": nn.Dropout(0.4, inplace=True),
    "paths": DropPath(0.4),
    "unscaled": DropPath(0.4, scale_by_keep=False),
    "gaussian": Gaussian(),
}
SHAPES = {"vectors": (5,), "tokens": (6, 5), "map": (5, 4, 3)}
IMAGES = 7
BATCH = torch.rand(IMAGES, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def drawn(layer: nn.Module, *inputs: object) -> Tensor:
    torch.manual_seed(5)
    return layer(*inputs)


def by_rank(network: nn.Module, batch: Tensor, world: int, *more: object) -> list[Tensor]:
    """What each rank of some makes of its rows of a batch."""
    outputs = []
    for rank in range(world):
        mine = nn.Sequential(deepcopy(network))
        share_noise(mine, RankRows(rank=rank, world=world, images=IMAGES))
        per_image = batch.unflatten(0, (IMAGES, -1))
        rows = per_image[rank::world].flatten(0, 1)
        keeps = batch.dim() == 4 and batch.is_contiguous(memory_format=torch.channels_last)
        rows = rows.contiguous(memory_format=torch.channels_last if keeps else torch.contiguous_format)
        outputs.append(drawn(mine[0], rows, *more))
    return outputs


def assert_rows(outputs: Sequence[Tensor], whole: Tensor, *, rtol: float = 0.0, atol: float = 0.0) -> None:
    for rank, found in enumerate(outputs):
        expected = whole.unflatten(0, (IMAGES, -1))[rank :: len(outputs)].flatten(0, 1)
        torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("rows", [1, 4], ids=["images", "windows"])
@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("name", list(LAYERS))
def test_rows_are_those_of_one_process(name: str, world: int, shape: str, rows: int, last: bool) -> None:
    batch = torch.rand(IMAGES * rows, *SHAPES[shape], generator=torch.Generator().manual_seed(1))
    if last and batch.dim() == 4:
        batch = batch.contiguous(memory_format=torch.channels_last)
    layer = LAYERS[name].train()
    for given in (batch, batch.bfloat16()):
        whole = drawn(layer, given.clone())
        assert_rows(by_rank(layer, given, world), whole)
        assert (whole != given).any()


@pytest.mark.parametrize("name", ["dropout", "paths"])
def test_gradients_pass_where_values_do(name: str) -> None:
    layer = RankNoise(LAYERS[name], RankRows(rank=1, world=2, images=IMAGES)).train()
    batch = torch.rand(3, 6, 5).add(1).requires_grad_()
    output = drawn(layer, batch)
    output.sum().backward()
    assert batch.grad is not None
    torch.testing.assert_close(batch.grad, (output / batch).detach())
    layer.eval()
    assert layer(batch) is batch


def quiet(network: nn.Module) -> nn.Module:
    """In training, but for batch statistics: they are not this file's subject."""
    for module in network.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return network


@pytest.mark.parametrize("name", ["test_resnet", "test_byobnet", "mobilenetv3_small_050", "test_convnext", "test_vit"])
@pytest.mark.parametrize("world", [2, 3])
def test_every_family_drops_the_same(name: str, world: int) -> None:
    """Whatever a backbone drops is found, also where its rate is not timm's default."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"img_size": 64} if name == "test_vit" else {}
    network = quiet(timm.create_model(name, num_classes=0, drop_path_rate=0.5, **sizes))
    with torch.no_grad():
        for weight in network.parameters():  # some begin so that a dropped path makes no difference
            weight.add_(0.1 * torch.randn_like(weight))
    whole = drawn(network, BATCH)
    assert not torch.allclose(whole, network.eval()(BATCH), rtol=0.1)
    assert_rows(by_rank(quiet(network), BATCH, world), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*DENSE_HEADS, "pooled"])
def test_every_head_drops_the_same(name: str) -> None:
    torch.manual_seed(0)
    shapes = [(8, 16, 16), (12, 8, 8), (16, 4, 4), (24, 2, 2)]
    reductions = [64 // height for _, height, _ in shapes]
    channels = [channels for channels, *_ in shapes]
    head = quiet(
        PooledHead(channels, 3, dropout=0.5) if name == "pooled" else DENSE_HEADS[name](channels, reductions, 8, 3)
    )
    whole = [torch.rand(IMAGES, *shape) for shape in shapes]
    expected = drawn(head, whole, (64, 64))
    for rank in range(2):
        mine = nn.Sequential(deepcopy(head))
        share_noise(mine, RankRows(rank=rank, world=2, images=IMAGES))
        found = drawn(mine[0], [feature[rank::2] for feature in whole], (64, 64))
        torch.testing.assert_close(found, expected[rank::2])


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [("branched", ()), ("taps", (("joint", True),)), ("moe", (("experts", 4), ("router_width", 2), ("top_k", 2)))],
)
def test_every_strategy_draws_the_same(strategy: str, settings: tuple) -> None:
    """Windows of a Swin, tokens of its MLPs and routers, tasks in turn."""
    tasks = ("classification", "depth") if strategy != "moe" else ("classification",)
    spec = ModelSpec(
        strategy=strategy,
        backbone=BackboneSpec(name=noisy_swin.NAME, locations=4, size=(64, 64)),
        tasks=tuple(task_spec(kind, name=kind, head_width=8) for kind in tasks),
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
        groups=((0,) * len(tasks),) * 4 if strategy == "branched" else (),
        settings=settings,
    )
    torch.manual_seed(0)
    network = quiet(SHARING[strategy](spec))
    ranks = [deepcopy(network) for _ in range(3)]
    torch.manual_seed(5)
    whole = network(BATCH)
    for rank, mine in enumerate(ranks):
        share_noise(mine, RankRows(rank=rank, world=3, images=IMAGES))
        assert mine.state_dict().keys() == network.state_dict().keys()
        torch.manual_seed(5)
        for name, output in mine(BATCH[rank::3]).items():
            torch.testing.assert_close(output, whole[name][rank::3], rtol=1e-4, atol=1e-5)
