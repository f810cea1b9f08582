"""The largest entries of a tensor, an exact number of them, in modules that engines may stack."""

from __future__ import annotations

import torch
from torch import Tensor

from tombola.zoo.models.parametrizations.straight_through import StraightThrough


def top_k(scores: Tensor, keep: int) -> Tensor:
    """1 where a score is among the `keep` highest, else 0, in the scores' type. Ties are broken as in `keep_best`."""
    if not keep:
        return torch.zeros_like(scores)
    flat = scores.flatten()
    # As fast as `kthvalue`, which is not deterministic on CUDA, and much faster than sorting.
    least = flat.topk(keep, sorted=False).values.amin()
    above, equal = flat > least, flat == least
    last_of_equal = equal & (equal.flip(0).cumsum(0).flip(0) <= keep - above.sum())
    return (above | last_of_equal).to(scores.dtype).view_as(scores)


def trainable_top_k(scores: Tensor, keep: int) -> Tensor:
    """`top_k`, whose gradient is passed straight through to all scores, those of unused weights too."""
    kept: Tensor = StraightThrough.apply(scores, top_k(scores.detach(), keep))  # type: ignore[no-untyped-call]
    return kept
