"""Edge-popup: the weights of a network stay at their initial values, and a score for each weight is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tombola.pruning.mask import State
from tombola.zoo.models.parametrizations.top_k import top_k


def scores_of(state: State, ranked_by: Callable[[Tensor], Tensor] = torch.abs) -> dict[str, Tensor]:
    """|score| of every weight, by the name of the weight, from the `state_dict` of a network with `EdgePopup` or
    another parametrization with `scores`; `ranked_by` is what it ranks them by."""
    ending = ".0.scores"
    return {
        name.removesuffix(ending).replace("parametrizations.", ""): ranked_by(scores)
        for name, scores in state.items()
        if name.endswith(ending)
    }


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
        kept: Tensor = TopK.apply(self.scores.abs(), self.keep)  # type: ignore[no-untyped-call]
        return weight * kept


class TopK(torch.autograd.Function):
    """1 where a score is among the `keep` highest, else 0. The gradient is passed straight through (Bengio et al.
    2013), so that scores of unused weights are trained too. Ties are broken as in `keep_best`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(scores: Tensor, keep: int) -> Tensor:
        return top_k(scores, keep)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """The backward pass needs nothing."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return gradient, None
