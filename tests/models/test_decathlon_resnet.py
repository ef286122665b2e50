"""The Visual Decathlon's ResNet-26: its published counts, its cut, and one block against its definition."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backbone import build_blocks, feature_shapes
from models.spec import BackboneSpec

NAMES = {"decathlon_resnet26": 1, "decathlon_resnet26_half": 2, "decathlon_resnet26_quarter": 4}
networks = pytest.mark.parametrize(("name", "divisor"), NAMES.items(), ids=NAMES)
SMALL = "decathlon_resnet26_quarter"


def spec(name: str, size: int = 32, locations: int = 3) -> BackboneSpec:
    return BackboneSpec(name=name, locations=locations, size=(size, size))


def count(modules: Any) -> int:
    return sum(weight.numel() for module in modules for weight in module.parameters())


def test_the_published_counts() -> None:
    """5,814,688 parameters, 7,744 of them in batch norms; 25 convolutions, without the adapters' and the classifier."""
    modules = [module for block in build_blocks(spec("decathlon_resnet26")) for module in block.modules()]
    convolutions = [module for module in modules if isinstance(module, nn.Conv2d)]
    norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
    assert (len(convolutions), len(norms)) == (25, 26)
    assert (count(norms), count(convolutions) + count(norms)) == (7_744, 5_814_688)
    assert all(conv.kernel_size == (3, 3) and conv.bias is None for conv in convolutions)


@networks
def test_parameters_are_all_in_convolutions_and_norms(name: str, divisor: int) -> None:
    """Counted from the widths: 9 weights a pair of channels, two of each convolution's norm, a last norm."""
    stem, *groups = (width // divisor for width in (32, 64, 128, 256))
    pairs = [(3, stem), *((stem, groups[0]), (groups[0], groups[1]), (groups[1], groups[2]))]
    pairs += [(width, width) for width in groups for _ in range(7)]
    expected = sum(9 * before * after + 2 * after for before, after in pairs) + 2 * groups[-1]
    assert count(build_blocks(spec(name))) == expected


@networks
@pytest.mark.parametrize("size", [32, 64, 36])
def test_each_of_three_blocks_halves_the_map(name: str, divisor: int, size: int) -> None:
    """36 is odd before the last group: the shortcut rounds up as the convolution does."""
    shapes = feature_shapes(build_blocks(spec(name, size)), (size, size))
    sides = [-(-size // 2**d) for d in (1, 2, 3)]
    assert shapes == [(width // divisor, side, side) for width, side in zip((64, 128, 256), sides, strict=True)]


@networks
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("locations", [1, 2, 3])
def test_blocks_in_a_row_are_the_whole_network(name: str, divisor: int, training: bool, locations: int) -> None:
    torch.manual_seed(0)
    blocks = [block.train(training) for block in build_blocks(spec(name, locations=locations))]
    torch.manual_seed(0)
    net: Any = timm.create_model(name, num_classes=0).train(training)
    images = state = torch.randn(2, 3, 32, 32)
    for block in blocks:
        state = block(state)
    assert torch.equal(state, net.forward_features(images))
    assert state.shape == (2, 256 // divisor, 4, 4)


def by_definition(block: Any, state: Tensor) -> Tensor:
    """The first block of a group: a shortcut averages each 2 x 2 square, and has no more channels than its input."""
    change = functional.conv2d(state, block.conv1.weight, stride=2, padding=1)
    change = functional.batch_norm(change, None, None, block.bn1.weight, block.bn1.bias, training=True)
    change = functional.conv2d(change.relu(), block.conv2.weight, padding=1)
    change = functional.batch_norm(change, None, None, block.bn2.weight, block.bn2.bias, training=True)
    squares = state.unflatten(2, (-1, 2)).unflatten(4, (-1, 2))
    change[:, : state.shape[1]] += squares.mean((3, 5))
    return change.relu()


def test_a_block_that_changes_shape() -> None:
    net: Any = timm.create_model(SMALL)
    state = torch.randn(4, 8, 12, 16)
    torch.testing.assert_close(net.layer1[0](state), by_definition(net.layer1[0], state), rtol=1e-4, atol=1e-5)


@networks
def test_a_gradient_reaches_every_weight(name: str, divisor: int) -> None:
    blocks = build_blocks(spec(name))
    state = torch.randn(2, 3, 32, 32)
    for block in blocks:
        state = block(state)
    assert state.shape[1] == 256 // divisor
    state.square().mean().backward()
    gradients = [weight.grad for block in blocks for weight in block.parameters()]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


def test_timm_gives_it_a_classifier() -> None:
    images = torch.randn(2, 3, 32, 32)
    for arguments, shape in {(7, "avg"): (2, 7), (0, "avg"): (2, 64), (0, ""): (2, 64, 4, 4)}.items():
        net: Any = timm.create_model(SMALL, num_classes=arguments[0], global_pool=arguments[1])
        assert net(images).shape == shape


def test_it_has_no_trained_weights() -> None:
    wanted = BackboneSpec(name=SMALL, locations=3, size=(32, 32), pretrained=True)
    with pytest.raises(ValueError, match=rf"backbone\.pretrained: there are no weights for {SMALL}"):
        build_blocks(wanted)


def test_it_has_three_locations() -> None:
    with pytest.raises(ValueError, match=rf"backbone\.locations 4: {SMALL} has 3 stages"):
        build_blocks(spec(SMALL, locations=4))
