"""Top-KAST: the forward pass uses the largest weights, the backward pass some more."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tombola.zoo.models.parametrizations.top_k import top_k


class TopKast(nn.Module):
    """Uses the `keep` weights with the highest magnitude, and trains the `train` ones with the highest (Jayakumar et
    al. 2020, "Top-KAST: Top-K Always Sparse Training"); the others do not change by the loss.

    `penalty` is λ of the exploration regularisation: its gradient is λw for the weights in use, λw/D
    for the others that are trained, where D is the fraction in use, and 0 for the rest.
    """

    def __init__(self, weight: Tensor, keep: int, train: int, penalty: float = 0.0) -> None:  # noqa: ARG002
        super().__init__()
        self.keep, self.train_count, self.penalty = keep, train, penalty

    def forward(self, weight: Tensor) -> Tensor:
        used: Tensor = _TopKast.apply(weight, self.keep, self.train_count, self.penalty)  # type: ignore[no-untyped-call]
        return used


class _TopKast(torch.autograd.Function):
    """The largest weights; see `TopKast`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, keep: int, train: int, penalty: float) -> Tensor:  # noqa: ARG004
        return weight * top_k(weight.abs(), keep)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
        weight, *ctx.options = inputs
        ctx.save_for_backward(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        keep, train, penalty = ctx.options
        used, trained = top_k(weight.abs(), keep), top_k(weight.abs(), train)
        decay = penalty * (used + (trained - used) * (weight.numel() / max(keep, 1)))
        return trained * gradient + decay * weight, None, None, None
