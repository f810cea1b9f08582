"""What tests of structures share."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from tombola.pruning.mask import Mask
from tombola.pruning.scopes import scope
from tombola.pruning.scores.weights import uniform
from tombola.pruning.structures import Structure


def network(*widths: int, seed: int = 0) -> nn.Module:
    """Linear layers `0`, `1`, ... of these widths."""
    torch.manual_seed(seed)
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))


def prune(
    structure: Structure, mask: Mask, rate: float, scores: dict[str, Tensor] | None = None, **scope_options: Any
) -> Mask:
    """One pruning, at random if no scores are given."""
    chosen = scope(scope_options.pop("scope", "layer"), mask.shapes, rate, **scope_options)
    counts = chosen.keeps(structure.left(mask, chosen))
    return structure.keep_best(uniform(mask, 0) if scores is None else scores, mask, counts)
