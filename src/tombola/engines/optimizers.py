"""Optimizers by name, as torch has them; fused, because at this scale a step is mostly overhead."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn, optim

from tombola.run import Training


def optimizer(
    parameters: Iterable[nn.Parameter] | Iterable[Tensor], training: Training, capturable: bool = False
) -> optim.Optimizer:
    """The optimizer that `training` describes. Adam has its usual β = (0.9, 0.999) and ε = 1e-8; weight decay is
    the L2 penalty, not decoupled. Its steps are `capturable` in a CUDA graph if that is asked for."""
    if training.optimizer == "adam":
        return optim.Adam(
            parameters, lr=training.lr, weight_decay=training.weight_decay, fused=True, capturable=capturable
        )
    return optim.SGD(
        parameters, lr=training.lr, momentum=training.momentum, weight_decay=training.weight_decay, fused=True
    )
