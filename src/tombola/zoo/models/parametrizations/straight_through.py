"""Straight-through estimators: values that pass their gradient on as if they were the input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class StraightThrough(torch.autograd.Function):
    """`values`, whose gradient is that of `inputs`, of the same shape (Bengio et al. 2013, "Estimating or Propagating
    Gradients Through Stochastic Neurons for Conditional Computation")."""

    generate_vmap_rule = True

    @staticmethod
    def forward(inputs: Tensor, values: Tensor) -> Tensor:  # noqa: ARG004 - only its gradient is used
        return values.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """The backward pass needs nothing."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return gradient, None
