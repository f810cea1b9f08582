"""Soft threshold reparameterization (STR): each layer learns the threshold below which its weights are zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tombola.pruning.mask import State


def threshold_of(state: State, name: str) -> Tensor:
    """The threshold of the weight `name`, from the `state_dict` of a network with `SoftThreshold`."""
    layer, _, weight = name.rpartition(".")
    prefix = f"{layer}." if layer else ""
    return state[f"{prefix}parametrizations.{weight}.0.threshold"].sigmoid()


class SoftThreshold(nn.Module):
    """sign(w) · relu(|w| − sigmoid(s)), where s is a parameter of the layer that starts at `initial` (Kusupati et al.
    2020, "Soft Threshold Weight Reparameterization for Learnable Sparsity").

    Weight decay draws s towards 0, and so the threshold towards 1/2.
    """

    def __init__(self, weight: Tensor, initial: float) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.full((), initial, dtype=weight.dtype))

    def forward(self, weight: Tensor) -> Tensor:
        return weight.sign() * (weight.abs() - self.threshold.sigmoid()).relu()
