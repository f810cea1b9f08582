"""Edge-popup: the weights of a network stay at their initial values, and a score for each weight is trained."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tombola.zoo.models.parametrizations.top_k import trainable_top_k


class EdgePopup(nn.Module):
    """Keeps the `keep` weights with the highest |score|, and sets the others to zero (Ramanujan et al. 2020, "What's
    Hidden in a Randomly Weighted Neural Network?"). Scores are drawn as in the authors' code (Kaiming uniform,
    a = √5)."""

    frozen = True

    def __init__(self, weight: Tensor, keep: int) -> None:
        super().__init__()
        self.keep = keep
        self.scores = nn.Parameter(torch.empty_like(weight))
        nn.init.kaiming_uniform_(self.scores, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * trainable_top_k(self.scores.abs(), self.keep)
