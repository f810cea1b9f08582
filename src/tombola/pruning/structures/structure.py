"""Structure: which weights are pruned together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from tombola.pruning.mask import Mask
from tombola.pruning.ranking import keep_best
from tombola.pruning.scopes import Counts, Group, Scope, weights_left


class Structure(Protocol):
    """Prunes units: single weights, rows, filters, heads or tiles."""

    def units_left(self, mask: Mask, scope: Scope) -> dict[Group, int]:
        """The number of units left in each group of competing layers."""
        ...

    def keep_best(self, scores: Mapping[str, Tensor], mask: Mask, counts: Counts) -> Mask:
        """Keep in each group exactly as many units as `counts` gives: those of the highest scores.

        Raises `InputError` if a score is NaN: no order would be exact.
        """
        ...


class Unstructured:
    """Every weight is a unit."""

    def units_left(self, mask: Mask, scope: Scope) -> dict[Group, int]:
        return weights_left(mask, scope.groups)

    def keep_best(self, scores: Mapping[str, Tensor], mask: Mask, counts: Counts) -> Mask:
        return keep_best(scores, mask, counts)


UNSTRUCTURED = Unstructured()
