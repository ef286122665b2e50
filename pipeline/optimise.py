"""Optimisers and learning-rate schedules, by name."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from timm.optim import create_optimizer_v2
from torch import nn
from torch.optim import Optimizer

from pipeline.config import Train


def build_optimiser(network: nn.Module, train: Train, more: Sequence[nn.Parameter] = ()) -> Optimizer:
    """Map settings to an optimiser; weight decay spares biases, normalisation layers and `more`, parameters beside."""
    fused: dict[str, Any] = {} if train.optimiser == "lamb" else {"fused": True}
    # timm's "sgd" is Nesterov's, which has no meaning without a momentum; its "momentum" is the plain one.
    name = "momentum" if train.optimiser == "sgd" and not train.momentum else train.optimiser
    optimiser = create_optimizer_v2(
        network, opt=name, lr=train.lr, weight_decay=train.weight_decay, momentum=train.momentum, **fused
    )
    if more:
        optimiser.add_param_group({"params": list(more), "weight_decay": 0.0})
    return optimiser


def learning_rate(train: Train, step: int, steps_per_epoch: int) -> float:
    """Map a step to its learning rate: linear warm-up, then the named schedule over what is left."""
    warmup = round(train.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return train.lr * (step + 1) / warmup
    left = max(1, train.epochs * steps_per_epoch - warmup)
    return train.lr * SCHEDULES[train.schedule]((step - warmup) / left)


def _step(progress: float) -> float:
    return 0.1 ** sum(progress >= bound for bound in (0.5, 0.75))


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda _progress: 1.0,
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * min(1.0, progress))),
    "step": _step,
    "triangular": lambda progress: 1 - min(1.0, progress),
}
