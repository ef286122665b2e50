"""What a network costs and what sharing gains: parameters, FLOPs, the papers' two rules."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_params(module: nn.Module) -> int:
    """Map a module to its number of parameters, frozen ones too, shared ones once; buffers do not count."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_flops(module: nn.Module, *inputs: Any) -> int:
    """Map a module and its inputs to the FLOPs of one forward pass in eval mode: 2 per multiply-add.

    Products and convolutions count, element-wise work does not. Each submodule's training flag is left as it was.
    """
    modes = {child: child.training for child in module.modules()}
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten._grouped_mm: _grouped_mm_flops})
    try:
        with torch.no_grad(), counter:
            module.eval()(*inputs)
    finally:
        for child, training in modes.items():
            child.training = training
    return counter.get_total_flops()


def additional_params(*, active: int, norm: int, backbone: int, head: int) -> float:
    """Map parameter counts to the fraction that one task adds to its base network (TAPS, Wallingford et al. 2022).

    `active`: weights of the layers of which the task holds its own copy; `norm`: weight and bias of all normalisation
    layers, always its own; `backbone`: weights of all convolutions or linear layers; `head`: the task's head. The
    total of several tasks is 1 + the sum of their fractions.
    """
    return (active + norm) / (backbone + norm + head)


def s_score(errors: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """Map tasks' errors and a reference's, in one unit, to the Visual Decathlon's score (Rebuffi et al. 2017, Sec. 4).

    A task gives 1000 where nothing is wrong, 250 at the reference's error, 0 at twice that or more.
    """
    if not errors:
        raise ValueError("no task to score")
    total = 0.0
    for task, error in errors.items():
        if reference.get(task, 0) <= 0:
            raise ValueError(f"task {task!r}: the S-score needs a reference error above 0")
        total += 1000 * max(0.0, 1 - error / (2 * reference[task])) ** 2
    return total


def delta_mtl(
    values: Mapping[str, float], baselines: Mapping[str, float], higher_is_better: Mapping[str, bool]
) -> float:
    """Map each task's metric and its single-task baseline to Δ_MTL: the mean relative gain, in percent.

    A gain is positive whichever way the metric points. A baseline without a value in `values` does not count.
    """
    if not values:
        raise ValueError("no task to compare with its baseline")
    gains = []
    for task, value in values.items():
        if task not in baselines or task not in higher_is_better:
            raise ValueError(f"task {task!r}: its single-task baseline or its metric's direction is missing")
        baseline = baselines[task]
        if baseline == 0:
            raise ValueError(f"task {task!r}: its single-task baseline is 0, so a relative gain has no meaning")
        gain = (value - baseline) / abs(baseline)
        gains.append(gain if higher_is_better[task] else -gain)
    return 100 * sum(gains) / len(gains)


def _grouped_mm_flops(a: torch.Size, b: torch.Size, *_: Any, **__: Any) -> int:
    """FLOPs of rows a [rows, in] each multiplied with its expert's matrix in b [experts, in, out], by the shapes."""
    return 2 * a[0] * a[1] * b[-1]
