"""Structure: what lives and dies together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from tombola.pruning.mask import Mask
from tombola.pruning.ranking import keep_best
from tombola.pruning.scopes import Counts, Group, Scope, weights_left


class Structure(Protocol):
    """A way of pruning. What is counted is a unit: a weight, a row, a filter, a head, a tile."""

    def left(self, mask: Mask, scope: Scope) -> dict[Group, int]:
        """How many units are left in each group of layers that compete with each other."""
        ...

    def keep_best(self, scores: Mapping[str, Tensor], mask: Mask, counts: Counts) -> Mask:
        """Keep in each group exactly as many units as `counts` says: those of the highest scores.

        Raises `InputError` when a score is NaN: no order could be exact.
        """
        ...


class Unstructured:
    """Every weight by itself."""

    def left(self, mask: Mask, scope: Scope) -> dict[Group, int]:
        """See `Structure`."""
        return weights_left(mask, scope.groups)

    def keep_best(self, scores: Mapping[str, Tensor], mask: Mask, counts: Counts) -> Mask:
        """See `Structure`."""
        return keep_best(scores, mask, counts)


UNSTRUCTURED = Unstructured()
