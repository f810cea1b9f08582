"""Bernoulli gates: each weight is kept at random, with a probability that is trained."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tombola.zoo.models.parametrizations.straight_through import StraightThrough
from tombola.zoo.models.parametrizations.top_k import trainable_top_k


class BernoulliGates(nn.Module):
    """In training, keeps each weight with the probability sigmoid(score), drawn anew in every iteration from torch's
    global generator; the gradient is passed straight through the draw (Zhou et al. 2019, "Deconstructing Lottery
    Tickets"). In evaluation, keeps the `keep` weights with the highest probability; the authors' code draws, too.

    With `rescale`, the weights of a layer are multiplied by its size over the number kept (dynamic weight rescaling).
    Scores start so that the probabilities are the density of the layer, except for small differences, which are those
    of edge-popup's scores; in the authors' code all start at 1/2. Training may then keep more or fewer weights than
    `keep`.
    """

    frozen = True

    def __init__(self, weight: Tensor, keep: int, rescale: bool = False) -> None:
        super().__init__()
        self.keep, self.rescale = keep, rescale
        density = min(0.99, max(0.01, keep / max(1, weight.numel())))  # a probability of 0 or 1 has no gradient
        self.scores = nn.Parameter(torch.empty_like(weight))
        nn.init.kaiming_uniform_(self.scores, a=math.sqrt(5))
        with torch.no_grad():
            self.scores.add_(math.log(density / (1 - density)))

    def forward(self, weight: Tensor) -> Tensor:
        probabilities = self.scores.sigmoid()
        if self.training:
            drawn = torch.bernoulli(probabilities.detach())
            kept: Tensor = StraightThrough.apply(probabilities, drawn)  # type: ignore[no-untyped-call]
            count = drawn.sum().clamp(min=1)
        else:
            kept = trainable_top_k(self.scores, self.keep)
            count = torch.tensor(max(1, self.keep))
        return weight * kept * (weight.numel() / count) if self.rescale else weight * kept
