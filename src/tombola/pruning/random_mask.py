"""Random masks with exact counts."""

from __future__ import annotations

from collections.abc import Callable

from tombola.pruning.mask import Mask
from tombola.pruning.ranking import keep_best
from tombola.pruning.scopes import Counts
from tombola.pruning.scores.weights import uniform

RandomMask = Callable[[Mask, Mask, Counts, int], Mask]
"""Draws a mask as `random_mask` does."""


def random_mask(like: Mask, dense: Mask, counts: Counts, seed: int) -> Mask:
    """A random mask to compare the mask `like` with: of the weights that `dense` keeps, as many in each group of
    layers as `counts` gives. Masks of one seed are nested."""
    return keep_best(uniform(like, seed), dense, counts)
