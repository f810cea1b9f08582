"""Optimizers of a user, by import path."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import optim


class Lion(optim.Optimizer):
    """Lion (Chen et al. 2023, algorithm 2). It counts its steps in a number of Python."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        for group in self.param_groups:
            one, other = group["betas"]
            for parameter in group["params"]:
                state = self.state[parameter]
                momentum = state.setdefault("momentum", torch.zeros_like(parameter))
                state["steps"] = state.get("steps", 0) + 1
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(group["lr"] * torch.lerp(parameter.grad, momentum, one).sign())
                momentum.lerp_(parameter.grad, 1 - other)


class Forgetful(Lion):
    """It has state that no pause keeps."""

    def __init__(self, params: Iterable[Any], lr: float) -> None:
        super().__init__(params, lr)
        self.count = 0

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.count += 1
        for _ in range(self.count % 3):
            super().step(closure)


class Undecayed(optim.SGD):
    """Without weight decay."""

    def __init__(self, params: Iterable[Any], lr: float) -> None:
        super().__init__(params, lr)
