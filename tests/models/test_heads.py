"""What holds for the heads, at every stride and size that a backbone may bring."""

from math import ceil

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import ASPPConv
from torchvision.models.segmentation.deeplabv3 import DeepLabHead as TorchvisionHead

from models.heads import DENSE_HEADS, FEWEST_LOCATIONS, DeepLabHead, PooledHead, PyramidHead, PyramidPoolingHead

FEWEST = {"upernet": FEWEST_LOCATIONS}
STRIDES = [(4, 8, 16, 32), (16, 16, 16, 16), (2, 4), (8,), (32,), (1, 1), (14, 14)]


def features(reductions: tuple[int, ...], size: tuple[int, int], pad: bool = True) -> list[Tensor]:
    cells = [[ceil(n / r) if pad else n // r for n in size] for r in reductions]
    return [torch.randn(2, 3 + d, *cell) for d, cell in enumerate(cells)]


def channels(reductions: tuple[int, ...]) -> list[int]:
    return [3 + d for d in range(len(reductions))]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("name", "reductions"), [(n, r) for n in DENSE_HEADS for r in STRIDES if len(r) >= FEWEST.get(n, 1)]
)
@pytest.mark.parametrize("size", [(64, 64), (37, 51), (33, 80)])
@pytest.mark.parametrize("pad", [True, False])
def test_a_dense_head_gives_one_vector_per_pixel(
    name: str, reductions: tuple[int, ...], size: tuple[int, int], pad: bool
) -> None:
    head = DENSE_HEADS[name](channels(reductions), reductions, 8, 5)
    assert head(features(reductions, size, pad), size).shape == (2, 5, *size)


@pytest.mark.parametrize("reductions", STRIDES)
def test_every_location_and_weight_takes_part(reductions: tuple[int, ...]) -> None:
    head = PyramidHead(channels(reductions), reductions, width=8, outputs=2)
    inputs = [f.requires_grad_() for f in features(reductions, (64, 96))]
    head(inputs, (64, 96)).square().sum().backward()
    for tensor in (*inputs, *head.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


@pytest.mark.parametrize("reductions", STRIDES)
def test_a_fresh_pyramid_guesses_below_one_whatever_the_scale_of_its_features(reductions: tuple[int, ...]) -> None:
    head = PyramidHead(channels(reductions), reductions, width=32, outputs=2)
    loud = [1000 * feature for feature in features(reductions, (64, 64))]
    assert head(loud, (64, 64)).std() < 1


def test_output_pixels_stand_over_the_features_they_come_from() -> None:
    """A change of one feature pixel moves the output around that place only, at odd sizes too."""
    head = PyramidHead([3], [4], width=8, outputs=1).eval()
    (feature,) = features((4,), (38, 50))
    moved = feature.clone()
    moved[:, :, 6, 9] += 1
    change = (head([moved], (38, 50)) - head([feature], (38, 50))).abs().sum((0, 1))
    rows, columns = change.nonzero().unbind(1)
    # one cell more on each side, from the 3x3 convolution
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 31, 32, 43)


@pytest.mark.parametrize("reductions", STRIDES)
def test_memory_format_changes_nothing(reductions: tuple[int, ...]) -> None:
    head = PyramidHead(channels(reductions), reductions, width=8, outputs=2).eval()
    inputs = features(reductions, (37, 51))
    plain = head(inputs, (37, 51))
    head = head.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    last = head([f.contiguous(memory_format=torch.channels_last) for f in inputs], (37, 51))
    torch.testing.assert_close(last, plain)


def test_pooled_is_linear_in_the_mean_of_the_last_location() -> None:
    head = PooledHead([3, 4], outputs=6)
    inputs = features((4, 8), (37, 51))
    mean = torch.tensor([[plane.mean() for plane in image] for image in inputs[-1]])
    torch.testing.assert_close(head(inputs, (37, 51)), mean @ head.linear.weight.T + head.linear.bias)
    shuffled = inputs[-1].flip(2, 3)
    torch.testing.assert_close(head([*inputs[:-1], shuffled], (37, 51)), head(inputs, (37, 51)))


def test_dropout_acts_in_training_only() -> None:
    head = PooledHead([4], outputs=3, dropout=0.5)
    inputs = [torch.randn(2, 4, 8, 8)]
    assert not torch.equal(head(inputs, (64, 64)), head(inputs, (64, 64)))
    head.eval()
    assert torch.equal(head(inputs, (64, 64)), head(inputs, (64, 64)))


@pytest.mark.parametrize("head", [PooledHead([4], 3), PyramidHead([4], [8], 8, 3)])
def test_heads_run_under_autocast(head: nn.Module) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        output = head([torch.randn(2, 4, 8, 8)], (64, 64))
    assert output.dtype == torch.bfloat16
    assert output.isfinite().all()


@pytest.mark.parametrize(("outputs", "number"), [(19, 23_083_539), (2, 23_074_818), (1, 23_074_305)])
def test_pyramid_pooling_has_the_parameters_of_the_cityscapes_networks(outputs: int, number: int) -> None:
    with torch.device("meta"):
        head = PyramidPoolingHead([2048], [8], width=512, outputs=outputs)
    assert sum(parameter.numel() for parameter in head.parameters()) == number


def test_pyramid_pooling_sees_the_whole_image_everywhere() -> None:
    head = PyramidPoolingHead([3], [8], width=8, outputs=1).eval()
    (feature,) = features((8,), (96, 96))
    moved = feature.clone()
    moved[:, :, 0, 0] += 100
    assert (head([moved], (96, 96)) != head([feature], (96, 96))).all()


@pytest.mark.parametrize("outputs", [1, 19])
def test_deeplab_has_the_parameters_of_torchvisions_head(outputs: int) -> None:
    with torch.device("meta"):
        ours, theirs = DeepLabHead([512, 2048], [8, 16], 256, outputs), TorchvisionHead(2048, outputs)
    assert sorted(tuple(p.shape) for p in ours.parameters()) == sorted(tuple(p.shape) for p in theirs.parameters())


@pytest.mark.parametrize(
    ("stride", "rates"), [(8, [12, 24, 36]), (16, [6, 12, 18]), (32, [3, 6, 9]), (14, [7, 14, 21]), (128, [1, 2, 2])]
)
def test_deeplab_reaches_equally_far_at_every_stride(stride: int, rates: list[int]) -> None:
    head = DeepLabHead([4], [stride], 8, 2)
    dilated = [module[0] for module in head.modules() if isinstance(module, ASPPConv)]
    assert [layer.dilation for layer in dilated] == [(rate, rate) for rate in rates]  # pyright: ignore[reportAttributeAccessIssue]


def test_deeplab_is_torchvisions_head_but_for_the_normalisation() -> None:
    """With each image's statistics put in the place of the batch's, both are one function."""
    head, theirs = DeepLabHead([4], [16], 256, 3).eval(), TorchvisionHead(4, 3, (6, 12, 18)).eval()
    for module in theirs.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.GroupNorm(1, child.num_features))
    theirs.load_state_dict(dict(zip(theirs.state_dict(), head.state_dict().values(), strict=True)))
    feature = torch.randn(2, 4, 10, 12)
    wanted = nn.functional.interpolate(theirs(feature), size=(160, 192), mode="bilinear", align_corners=False)
    torch.testing.assert_close(head([feature], (160, 192)), wanted, atol=1e-5, rtol=1e-4)


def test_deeplab_trains_on_one_image_of_one_cell() -> None:
    head = DeepLabHead([4], [32], 8, 2).train()
    output = head([torch.randn(1, 4, 1, 1)], (32, 32))
    output.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    assert not list(head.buffers())


def test_deeplab_sees_the_whole_image_everywhere() -> None:
    head = DeepLabHead([3], [8], width=8, outputs=1).eval()
    (feature,) = features((8,), (96, 96))
    moved = feature.clone()
    moved[:, :, 0, 0] += 100
    assert (head([moved], (96, 96)) != head([feature], (96, 96))).all()
