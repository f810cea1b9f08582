"""What the kernels need of an optimizer of torch: its options, and the state of a parameter, which stays torch's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, optim

from tombola.engines.stacked.storage_order import in_order_of


@dataclass(frozen=True)
class Rule:
    """The options of a group of parameters of `torch.optim.Adam` or `torch.optim.SGD`, as `build_optimizer` makes
    them."""

    adam: bool
    lr: float | Tensor
    """A tensor, of one element on the device, where it changes during the training."""
    momentum: float
    """Of SGD, or Adam's β₁."""
    beta2: float
    eps: float
    weight_decay: float
    nesterov: bool

    @classmethod
    def of(cls, group: dict[str, Any]) -> Rule:
        if "betas" in group:
            momentum, beta2 = group["betas"]
            return cls(True, group["lr"], momentum, beta2, group["eps"], group["weight_decay"], nesterov=False)
        return cls(False, group["lr"], group["momentum"], 0.0, 0.0, group["weight_decay"], group["nesterov"])

    def constants(self) -> dict[str, Any]:
        """What a kernel is compiled with. The learning rate is not among it: experiments compare many."""
        return {
            "ADAM": self.adam,
            "MOMENTUM": self.momentum,
            "BETA2": self.beta2,
            "LOG_MOMENTUM": math.log(self.momentum) if self.adam else 0.0,
            "LOG_BETA2": math.log(self.beta2) if self.adam else 0.0,
            "EPS": self.eps,
            "WEIGHT_DECAY": self.weight_decay,
            "NESTEROV": self.nesterov,
            "LR_ON_DEVICE": isinstance(self.lr, Tensor),
        }


@dataclass(frozen=True)
class UpdatedParameter:
    """A parameter with its optimizer state and mask, all with their elements in the same order in memory."""

    tensor: Tensor
    first: Tensor | None
    """The momentum, or Adam's first moment."""
    second: Tensor | None
    """Adam's second moment."""
    step: Tensor | None
    """Adam's number of steps, one float32 on the device."""
    pruned: Tensor | None
    """Which weights stay zero, one byte a weight; None if none do."""

    @classmethod
    def of(cls, parameter: Tensor, optimizer: optim.Optimizer, rule: Rule, pruned: Tensor | None) -> UpdatedParameter:
        """Missing state begins as in torch: with zeros, before the first step."""
        mask = None if pruned is None else in_order_of(pruned, parameter).view(torch.uint8)
        first = second = step = None
        if rule.adam:
            state = optimizer.state[parameter]
            if "step" not in state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            step = state["step"]
            first, second = _entry(state, "exp_avg", parameter), _entry(state, "exp_avg_sq", parameter)
        elif rule.momentum:
            first = _entry(optimizer.state[parameter], "momentum_buffer", parameter)
        return cls(parameter.detach(), first, second, step, mask)

    def pointers(self) -> tuple[Tensor | None, ...]:
        """The arguments of a kernel."""
        return self.tensor, self.first, self.second, self.step, self.pruned


def count_step(updated: Sequence[UpdatedParameter]) -> None:
    """Begin a step: Adam's bias correction needs its number."""
    steps = [one.step for one in updated if one.step is not None]
    if steps:
        torch._foreach_add_(steps, 1)


def _entry(state: dict[str, Tensor], name: str, parameter: Tensor) -> Tensor:
    """A state of the parameter's shape and strides; zeros if there is none yet."""
    if name not in state:
        state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format, requires_grad=False)
    return state[name]
