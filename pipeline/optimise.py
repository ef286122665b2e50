"""Optimisers and learning-rate schedules, by name."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from torch import nn
from torch.optim import Optimizer

from models.sharing import SharedModel
from pipeline.config import Train


def build_optimiser(network: SharedModel, train: Train, more: Sequence[nn.Parameter] = ()) -> Optimizer:
    """Map settings to an optimiser of all that trains, and of `more`, parameters beside the network.

    Weight decay spares vectors (biases, normalisation layers, scores), what the network names, and `more`. A group's
    `lr_scale` is what its learning rate is multiplied by.
    """
    # LAMB would bound the gradient's norm once more, by its own figure: `train.clip` alone does.
    own: dict[str, Any] = {"max_grad_norm": None} if train.optimiser == "lamb" else {"fused": True}
    # timm's "sgd" is Nesterov's, which has no meaning without a momentum; its "momentum" is the plain one.
    plain = train.optimiser == "sgd" and not (train.momentum and train.nesterov)
    opt = "momentum" if plain else train.optimiser
    spared, groups = network.no_weight_decay(), dict[tuple[float, float], list[nn.Parameter]]()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decay = train.weight_decay if parameter.ndim > 1 and name not in spared else 0.0
            groups.setdefault((decay, network.lr_scale(name)), []).append(parameter)
    if more:
        groups.setdefault((0.0, 1.0), []).extend(more)
    listed = [
        {"params": members, "weight_decay": decay, "lr_scale": scale} for (decay, scale), members in groups.items()
    ]
    optimiser = create_optimizer_v2(listed, opt=opt, lr=train.lr, momentum=train.momentum, **own)
    if train.optimiser == "sgd" and train.momentum:
        _begin_momentum(optimiser)
    return optimiser


def _begin_momentum(optimiser: Optimizer) -> None:
    """Start every momentum at zero: torch's fused SGD fails where a parameter's first gradient comes in a later step.

    With several data sets a step reaches the heads of one of them. A first step from zero is what SGD does without.
    """
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def learning_rate(train: Train, step: int, steps_per_epoch: int) -> float:
    """Map a step to its learning rate: linear warm-up, then the named schedule over what is left."""
    warmup = round(train.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return train.lr * (step + 1) / warmup
    left = max(1, train.epochs * steps_per_epoch - warmup)
    return train.lr * SCHEDULES[train.schedule]((step - warmup) / left, train.milestones)


def _step(progress: float, milestones: Sequence[float]) -> float:
    return 0.1 ** sum(progress >= bound for bound in milestones)


# "poly" is that of PSPNet and DeepLab (Chen et al. 2018, Sec. 4.1).
SCHEDULES: dict[str, Callable[[float, Sequence[float]], float]] = {
    "constant": lambda _progress, _: 1.0,
    "cosine": lambda progress, _: 0.5 * (1 + math.cos(math.pi * min(1.0, progress))),
    "step": _step,
    "poly": lambda progress, _: (1 - min(1.0, progress)) ** 0.9,
    "triangular": lambda progress, _: 1 - min(1.0, progress),
}
