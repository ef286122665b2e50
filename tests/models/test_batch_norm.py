"""Statistics over groups of images are torch's own of each group, whatever rank holds it."""

from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional as F

from models.batch_norm import average_statistics, synchronise_batch_norm

CPU = torch.device("cpu")
MOMENTUM = 0.3
TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def layer(kind: type[nn.BatchNorm2d] = nn.BatchNorm2d, channels: int = 5) -> nn.BatchNorm2d:
    """A layer some way into training."""
    torch.manual_seed(0)
    norm = kind(channels, momentum=MOMENTUM).double()
    with torch.no_grad():
        for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            value.copy_(torch.rand_like(value) + 0.5)  # pyright: ignore[reportOptionalMemberAccess, reportArgumentType]
    return norm


def ghost(images: int, kind: type[nn.BatchNorm2d] = nn.BatchNorm2d) -> nn.Module:
    return synchronise_batch_norm(nn.Sequential(layer(kind)), CPU, images)[0]  # pyright: ignore[reportIndexIssue]


def by_hand(x: Tensor, images: int) -> tuple[Tensor, dict[str, Tensor]]:
    """torch's batch norm of every group in turn; running statistics follow the mean over groups."""
    norm, groups = layer(), len(x) // images
    output, means, variances = torch.empty_like(x), [], []
    for group in range(groups):
        part = x[group::groups]
        output[group::groups] = F.batch_norm(part, None, None, norm.weight, norm.bias, training=True)
        means.append(part.mean((0, 2, 3)))
        variances.append(part.var((0, 2, 3), unbiased=True))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    statistics = {
        "running_mean": (1 - MOMENTUM) * norm.running_mean + MOMENTUM * torch.stack(means).mean(0),
        "running_var": (1 - MOMENTUM) * norm.running_var + MOMENTUM * torch.stack(variances).mean(0),
    }
    return output, {name: value.detach() for name, value in statistics.items()}


def batch(images: int = 12) -> Tensor:
    numbers = torch.randn(images, 5, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return numbers * torch.arange(1, images + 1).view(-1, 1, 1, 1) + torch.arange(images).view(-1, 1, 1, 1)


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("images", "world"), [(k, w) for k in (1, 2, 3, 4, 6, 12) for w in (1, 2, 3) if 12 // k % w == 0]
)
def test_any_ranks_give_torchs_own_of_each_group(images: int, world: int, form: torch.memory_format) -> None:
    x, weights = batch().requires_grad_(), torch.rand(12, 5, 4, 3, dtype=torch.float64)
    expected, statistics = by_hand(x, images)
    (expected * weights).sum().backward()
    ranks = [ghost(images) for _ in range(world)]
    taken = x.detach().clone().requires_grad_()
    for rank, norm in enumerate(ranks):
        output = norm(taken[rank::world].contiguous(memory_format=form))
        torch.testing.assert_close(output, expected[rank::world])
        (output * weights[rank::world]).sum().backward()
    torch.testing.assert_close(taken.grad, x.grad)
    assert (images == 12) == torch.allclose(layer()(x), expected)
    for name, value in statistics.items():
        torch.testing.assert_close(torch.stack([norm.get_buffer(name) for norm in ranks]).mean(0), value)


@pytest.mark.parametrize("images", [2, 4])
def test_the_parameters_gradient_is_the_sum_over_groups(images: int) -> None:
    plain, mine, x = layer(), ghost(images), batch(8)
    groups = 8 // images
    for group in range(groups):
        F.batch_norm(x[group::groups], None, None, plain.weight, plain.bias, training=True).square().sum().backward()
    mine(x).square().sum().backward()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(mine.get_parameter(name).grad, parameter.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
def test_a_group_of_the_whole_batch_is_torchs_layer_to_the_bit(kind: type, dtype: torch.dtype) -> None:
    plain, mine = layer(kind).float(), ghost(12, kind).float()
    for _ in range(3):
        given = batch().to(dtype)
        one, two = plain(given), mine(given)
        assert torch.equal(one, two)
        for output in (one, two):
            output.float().square().sum().backward()
    assert all(torch.equal(getattr(plain, name), getattr(mine, name)) for name in TENSORS)
    assert all(torch.equal(getattr(plain, name).grad, getattr(mine, name).grad) for name in ("weight", "bias"))
    assert torch.equal(plain.eval()(batch().float()), mine.eval()(batch().float()))


def test_a_layer_that_stays_as_it_is_does() -> None:
    plain, mine = layer().eval(), ghost(3).eval()
    assert torch.equal(plain(batch()), mine(batch()))
    assert all(torch.equal(getattr(plain, name), getattr(mine, name)) for name in TENSORS)


def test_tensors_keep_their_names_and_stay_the_same() -> None:
    timms: Any = BatchNormAct2d
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Sequential(layer(), nn.ReLU()), layer(timms))
    before = network.state_dict(keep_vars=True)
    after = synchronise_batch_norm(network, CPU, 2).state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[name] is value for name, value in before.items())


def test_what_ranks_agree_on_stays_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """In single precision a third of three equal numbers is not always that number."""
    norm = layer(channels=2000).float()
    assert norm.running_mean is not None
    norm.running_mean.normal_()
    assert not torch.equal((3 * norm.running_mean) / 3, norm.running_mean)
    network = synchronise_batch_norm(nn.Sequential(deepcopy(norm)), CPU, 4)
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    monkeypatch.setattr(dist, "all_reduce", lambda numbers: numbers.mul_(3))
    average_statistics(network)
    assert torch.equal(network.get_buffer("0.running_mean"), norm.running_mean)


def test_ranks_are_asked_for_what_moves_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    network = synchronise_batch_norm(nn.Sequential(layer(), layer()), CPU, 4)
    network.get_submodule("1").eval()
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda numbers: numbers.fill_(9))
    average_statistics(network)
    for name in TENSORS[2:4]:
        assert network.get_buffer(f"0.{name}").tolist() == [4.5] * 5
        assert torch.equal(network.get_buffer(f"1.{name}"), getattr(layer(), name))
    monkeypatch.setattr(dist, "all_reduce", None)
    average_statistics(nn.Sequential(layer(), nn.LayerNorm(3)))
