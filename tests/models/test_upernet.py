"""The UperNet head against its definition: pooling, the way down, one map, and no statistics of a batch."""

from math import ceil
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.heads import POOLING_BINS, UperNetHead

STRIDES = [(4, 8, 16, 32), (4, 8, 16), (16, 16, 16, 16), (1, 2, 4), (2, 4, 8, 16, 32)]
strides = pytest.mark.parametrize("reductions", STRIDES)


def channels(reductions: tuple[int, ...]) -> list[int]:
    return [3 + d for d in range(len(reductions))]


def features(reductions: tuple[int, ...], size: tuple[int, int] = (64, 96), batch: int = 2) -> list[Tensor]:
    return [torch.randn(batch, 3 + d, *(ceil(n / r) for n in size)) for d, r in enumerate(reductions)]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@strides
def test_every_location_and_weight_takes_part(reductions: tuple[int, ...]) -> None:
    head = UperNetHead(channels(reductions), reductions, 8, 2)
    inputs = [feature.requires_grad_() for feature in features(reductions)]
    head(inputs, (64, 96)).square().sum().backward()
    for tensor in (*inputs, *head.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


@strides
def test_an_image_does_not_depend_on_the_rest_of_its_batch(reductions: tuple[int, ...]) -> None:
    head = UperNetHead(channels(reductions), reductions, 8, 2).train()
    inputs = features(reductions)
    together = head(inputs, (64, 96))
    alone = torch.cat([head([feature[b : b + 1] for feature in inputs], (64, 96)) for b in range(2)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(head.eval()(inputs, (64, 96)), together)
    assert not list(head.buffers())


@pytest.mark.parametrize("size", [(32, 32), (37, 51)])
def test_one_image_whose_last_map_is_one_pixel_can_be_trained_on(size: tuple[int, int]) -> None:
    head = UperNetHead([3, 4, 5, 6], (4, 8, 16, 32), 8, 2).train()
    output = head(features((4, 8, 16, 32), size, batch=1), size)
    assert output.shape == (1, 2, *size)
    assert output.isfinite().all()
    assert output.std() > 0


def test_the_features_are_left_as_they_were() -> None:
    inputs = features((4, 8, 16, 32))
    copies = [feature.clone() for feature in inputs]
    given = list(inputs)
    UperNetHead([3, 4, 5, 6], (4, 8, 16, 32), 8, 2)(given, (64, 96))
    assert all(one is other for one, other in zip(given, inputs, strict=True))
    assert all(torch.equal(one, copy) for one, copy in zip(inputs, copies, strict=True))


def convolved(block: nn.Sequential, x: Tensor) -> Tensor:
    """A convolution, its normalisation over each image, ReLU; by hand."""
    weight, norm = block[0].weight, block[1]
    assert isinstance(weight, Tensor)
    assert isinstance(norm, nn.GroupNorm)
    x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    mean, variance = x.mean((1, 2, 3), keepdim=True), x.var((1, 2, 3), keepdim=True, correction=0)
    x = (x - mean) / (variance + 1e-5).sqrt()
    return (x * norm.weight[:, None, None] + norm.bias[:, None, None]).relu()


def enlarged(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def test_the_head_by_hand() -> None:
    """Xiao et al. 2018, Fig. 4: pyramid pooling, lateral maps added on the way down, all levels fused at the finest."""
    head = UperNetHead([3, 4, 5, 6], (4, 8, 16, 32), 8, 2)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.3)
    inputs, net = features((4, 8, 16, 32), (64, 96)), cast(Any, head.decoder)
    maps = []
    for feature, norm in zip(inputs, net.feature_norms, strict=True):
        rows = F.layer_norm(feature.movedim(1, -1), feature.shape[1:2], norm.weight, norm.bias, 1e-6)
        maps.append(rows.movedim(-1, 1))
    pooled = [
        enlarged(convolved(block[1], F.adaptive_avg_pool2d(maps[-1], bins)), maps[-1])
        for block, bins in zip(net.psp.blocks, POOLING_BINS, strict=True)
    ]
    down = [convolved(net.psp.out_conv, torch.cat([maps[-1], *pooled], 1))]
    for lateral, x in zip(net.fpn_lateral_blocks, reversed(maps[:-1]), strict=True):
        down.append(convolved(lateral.conv_norm_relu, x) + enlarged(down[-1], x))
    levels = [down[0], *(convolved(conv, x) for conv, x in zip(net.fpn_conv_blocks, down[1:], strict=True))]
    fused = convolved(net.fusion_block, torch.cat([enlarged(x, levels[-1]) for x in reversed(levels)], 1))
    wanted = F.interpolate(head.project(fused), size=(64, 96), mode="bilinear", align_corners=False)
    torch.testing.assert_close(head(inputs, (64, 96)), wanted, atol=1e-5, rtol=1e-4)


def test_it_runs_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        output = UperNetHead([3, 4, 5, 6], (4, 8, 16, 32), 8, 2)(features((4, 8, 16, 32)), (64, 96))
    assert output.dtype == torch.bfloat16
    assert output.isfinite().all()


@pytest.mark.parametrize("number", [1, 2])
def test_too_few_locations_are_refused(number: int) -> None:
    with pytest.raises(
        ValueError, match=f"head 'upernet' needs 3 locations or more, but backbone.locations is {number}"
    ):
        UperNetHead([3, 4][:number], (4, 8)[:number], 8, 2)
