"""Random masks with exact counts."""

from __future__ import annotations

from collections.abc import Callable

from tombola.pruning.mask import Mask
from tombola.pruning.scopes import Counts
from tombola.pruning.structures import UNSTRUCTURED, Structure

RandomMask = Callable[[Mask, Mask, Counts, int, Structure], Mask]
"""Draws a mask as `random_mask` does."""


def random_mask(like: Mask, dense: Mask, counts: Counts, seed: int, structure: Structure = UNSTRUCTURED) -> Mask:  # noqa: ARG001
    """A random mask to compare the mask `like` with: of the units that `dense` keeps, as many in each group as
    `counts` gives; see `Structure.draw`. Masks of one seed are nested."""
    return structure.draw(dense, counts, seed)
