"""Optimizers by name, as torch has them; fused, because at this scale a step is mostly overhead."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn.modules.batchnorm import _NormBase

from tombola.engines.lr_schedule import learning_rates
from tombola.runs.training import Training


def optimizer(
    parameters: Mapping[str, Tensor], normalising: Collection[str], training: Training, capturable: bool = False
) -> optim.Optimizer:
    """The optimizer that `training` describes. Adam has its usual β = (0.9, 0.999) and ε = 1e-8; weight decay is
    the L2 penalty, not decoupled; `normalising` names the parameters that may be spared it. Its steps are
    `capturable` in a CUDA graph if that is asked for: a learning rate that changes is then kept on the device.
    """
    spared = set() if training.decay_normalisation else set(normalising)
    groups: list[dict[str, Any]] = [{"params": [p for name, p in parameters.items() if name not in spared]}]
    if spared:
        groups.append({"params": [p for name, p in parameters.items() if name in spared], "weight_decay": 0.0})
    lr: float | Tensor = training.lr
    if capturable and changing(training):
        lr = torch.tensor(training.lr, device=next(iter(parameters.values())).device)
    if training.optimizer == "adam":
        return optim.Adam(groups, lr=lr, weight_decay=training.weight_decay, fused=True, capturable=capturable)
    return optim.SGD(
        groups,
        lr=lr,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        nesterov=training.nesterov,
        fused=True,
    )


def normalising(network: nn.Module) -> list[str]:
    """The names of the parameters of normalisation layers."""
    kinds = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    return [
        f"{layer}.{name}" if layer else name
        for layer, module in network.named_modules()
        if isinstance(module, kinds)
        for name, _ in module.named_parameters(recurse=False)
    ]


def changing(training: Training) -> bool:
    """Whether the learning rate is not the same throughout."""
    return training.schedule != "constant" or training.warmup.iterations > 0


class Rates:
    """Gives an optimizer the learning rates of a training, iteration by iteration."""

    def __init__(self, optimizer: optim.Optimizer, training: Training) -> None:
        self.optimizer = optimizer
        self.training = training
        self.changing = changing(training)

    def of(self, first: int, count: int) -> list[float]:
        """The learning rates of `count` iterations from the `first` on."""
        rates: list[float] = learning_rates(self.training, first, count).tolist()
        return rates

    def set(self, rate: float) -> None:
        """Take `rate` for the next step. It does not wait for the device."""
        if not self.changing:
            return
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
