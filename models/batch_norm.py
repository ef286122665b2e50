"""Batch normalisation on any number of ranks: over the global batch or over groups of its images, the same network.

torch's SyncBatchNorm needs a GPU; here is the same sum over ranks for CPUs. B batch, C channels, H W height and width,
G groups of a rank.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F


class _BatchNorm2d(nn.BatchNorm2d, ABC):
    """What stands in a BatchNorm2d's place and finds other statistics while training.

    It takes over the parameters, buffers and their names, so that a checkpoint does not know how many ranks there were.
    """

    def __init__(self, local: nn.BatchNorm2d) -> None:
        super().__init__(local.num_features, eps=local.eps, momentum=local.momentum)
        self.weight, self.bias = local.weight, local.bias
        self.running_mean, self.running_var = local.running_mean, local.running_var
        self.num_batches_tracked = local.num_batches_tracked
        self.drop: nn.Module = nn.Identity()
        self.act: nn.Module = nn.Identity()
        if isinstance(local, BatchNormAct2d):
            self.drop, self.act = local.drop, local.act  # pyright: ignore[reportAttributeAccessIssue]

    def forward(self, input: Tensor) -> Tensor:
        output = self.normalise(input) if self.training else super().forward(input)
        return self.act(self.drop(output))

    def statistics(self) -> tuple[Tensor, Tensor]:
        """The running mean and variance."""
        assert self.running_mean is not None
        assert self.running_var is not None
        return self.running_mean, self.running_var

    @abstractmethod
    def normalise(self, x_BCHW: Tensor) -> Tensor:
        """Map a rank's part of a training batch to the normalised, and take its statistics into the running ones."""


class GlobalBatchNorm2d(_BatchNorm2d):
    """BatchNorm2d whose training statistics are those of all ranks' images."""

    def normalise(self, x_BCHW: Tensor) -> Tensor:
        values = x_BCHW.to(torch.promote_types(x_BCHW.dtype, torch.float32))
        # In double: the difference of two large sums may be small, and ranks add them up in another order.
        sums_C = [part.sum((0, 2, 3), dtype=torch.float64) for part in (values, values.square())]
        total = all_reduce(torch.cat([*sums_C, sums_C[0].new_tensor([values.numel() / values.shape[1]])]))
        sum_C, square_C, count = total.split([self.num_features, self.num_features, 1])
        mean_C = sum_C / count
        variance_C = (square_C / count - mean_C.square()).clamp(min=0)
        self._track(mean_C.detach(), variance_C.detach() * count.detach() / (count.detach() - 1).clamp(min=1))
        scale_C = (torch.rsqrt(variance_C + self.eps) * self.weight).to(values.dtype)
        shift_C = (self.bias - mean_C * scale_C).to(values.dtype)
        return (values * scale_C[:, None, None] + shift_C[:, None, None]).to(x_BCHW.dtype)

    @torch.no_grad()
    def _track(self, mean_C: Tensor, variance_C: Tensor) -> None:
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        for running_C, found_C in zip(self.statistics(), (mean_C, variance_C), strict=True):
            running_C.lerp_(found_C.to(running_C.dtype), self.momentum)
        self.num_batches_tracked += 1


class GhostBatchNorm2d(_BatchNorm2d):
    """BatchNorm2d whose training statistics are those of groups of `images` images (Hoffer et al. 2017, Alg. 1).

    Image i of a global batch of n groups belongs to group i mod n. A rank of w holds every w-th image, and so n / w
    whole groups where w divides n; its own image j is of its group j mod (n / w). Unlike in the paper, the running
    statistics take a step's groups in at once, by their mean, which `average_statistics` makes that over all ranks.
    """

    def __init__(self, local: nn.BatchNorm2d, images: int) -> None:
        super().__init__(local)
        self.images = images

    def normalise(self, x_BCHW: Tensor) -> Tensor:
        groups, rest = divmod(len(x_BCHW), self.images)
        assert not rest, "a rank holds whole groups"
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        mean_GC, variance_GC = (running_C.repeat(groups) for running_C in self.statistics())
        output = F.batch_norm(
            x_BCHW.reshape(self.images, groups * self.num_features, *x_BCHW.shape[2:]),
            mean_GC,
            variance_GC,
            self.weight.repeat(groups),
            self.bias.repeat(groups),
            training=True,
            momentum=self.momentum,
            eps=self.eps,
        )
        for running_C, found_GC in zip(self.statistics(), (mean_GC, variance_GC), strict=True):
            running_C.copy_(found_GC.view(groups, -1).mean(0))
        self.num_batches_tracked += 1
        return output.reshape(x_BCHW.shape)


def synchronise_batch_norm(network: nn.Module, device: torch.device, images: int | None = None) -> nn.Module:
    """Map a network to the one whose normalisation sees the whole global batch; one rank needs no change.

    With `images`, its normalisation sees groups of so many, of which a rank holds all.
    """
    if images is not None:
        return _convert(network, partial(GhostBatchNorm2d, images=images))
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return network
    return convert_sync_batchnorm(network) if device.type == "cuda" else _convert(network, GlobalBatchNorm2d)


@torch.no_grad()
def average_statistics(network: nn.Module) -> None:
    """Make running statistics that each rank has of its own groups the mean over ranks, by one sum for all layers.

    Statistics follow a step's linearly, so this is what they were had one rank held all groups.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, GhostBatchNorm2d) and layer.training]
    buffers = [running_C for layer in layers for running_C in layer.statistics()]
    if not buffers:
        return
    # in double precision the mean of equal numbers is that number, so what no rank touched stays as it is
    together = torch.cat([running_C.double() for running_C in buffers])
    dist.all_reduce(together)
    means = together.div_(dist.get_world_size()).split([len(running_C) for running_C in buffers])
    for running_C, mean_C in zip(buffers, means, strict=True):
        running_C.copy_(mean_C)


def _convert(module: nn.Module, replacement: Callable[[nn.BatchNorm2d], nn.Module]) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, replacement(child))
        else:
            _convert(child, replacement)
    return module
