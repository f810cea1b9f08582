"""Biprop: binary weights, of which a score for each decides whether it is kept."""

from __future__ import annotations

import torch
from torch import Tensor

from tombola.zoo.models.parametrizations.edge_popup import EdgePopup
from tombola.zoo.models.parametrizations.straight_through import StraightThrough
from tombola.zoo.models.parametrizations.top_k import trainable_top_k


class Biprop(EdgePopup):
    """Edge-popup with binary weights: the kept ones are α · sign(weight), the others zero (Diffenderfer & Kailkhura
    2021, "Multi-Prize Lottery Ticket Hypothesis"). The gain α is the mean |weight| of the kept ones.

    As in the authors' code, a score's gradient is that of its effective weight times the weight: α passes none on.
    """

    def forward(self, weight: Tensor) -> Tensor:
        kept = trainable_top_k(self.scores.abs(), self.keep)
        with torch.no_grad():
            gain = (weight.abs() * kept).sum() / max(1, self.keep)
            binary = gain * weight.sign() * kept
        effective: Tensor = StraightThrough.apply(weight * kept, binary)  # type: ignore[no-untyped-call]
        return effective
