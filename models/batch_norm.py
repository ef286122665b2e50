"""Batch normalisation over the global batch on any device, so that one process and many give the same network.

torch's SyncBatchNorm needs a GPU; this is the same sum over ranks for CPUs. B batch, C channels, H W height and width.
"""

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose training statistics are those of all ranks' images.

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
        if not self.training:
            return self.act(self.drop(super().forward(input)))
        values = input.float()
        count = values.new_tensor([values.numel() / values.shape[1]])
        total = all_reduce(torch.cat([values.sum((0, 2, 3)), values.square().sum((0, 2, 3)), count]))
        sum_C, square_C, count = total.split([self.num_features, self.num_features, 1])
        mean_C = sum_C / count
        variance_C = (square_C / count - mean_C.square()).clamp(min=0)
        self._track(mean_C.detach(), variance_C.detach() * count.detach() / (count.detach() - 1).clamp(min=1))
        scale_C = torch.rsqrt(variance_C + self.eps) * self.weight
        shift_C = self.bias - mean_C * scale_C
        output = (values * scale_C[:, None, None] + shift_C[:, None, None]).to(input.dtype)
        return self.act(self.drop(output))

    @torch.no_grad()
    def _track(self, mean_C: Tensor, variance_C: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(variance_C, self.momentum)
        self.num_batches_tracked += 1


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """Map a network to the one whose normalisation sees the whole global batch; one rank needs no change."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return network
    return convert_sync_batchnorm(network) if device.type == "cuda" else _convert(network)


def _convert(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, GlobalBatchNorm2d(child))
        else:
            _convert(child)
    return module
