"""What tests of scores share."""

from __future__ import annotations

import torch
from torch import Tensor

from tombola.mask import Mask
from tombola.scores.grounds import Grounds


def grounds(seed: int = 0, **weights: Tensor) -> Grounds:
    """Weights alone, all of them left."""
    mask = Mask({name: torch.ones(weight.shape, dtype=torch.bool) for name, weight in weights.items()})
    return Grounds(weights, mask, seed)
