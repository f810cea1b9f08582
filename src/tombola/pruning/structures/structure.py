"""Structure: which weights are pruned together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from tombola.pruning.mask import Mask
from tombola.pruning.ranking import keep_best
from tombola.pruning.scopes import Counts, Group, Scope, weights_left
from tombola.pruning.scores.weights import uniform


class Structure(Protocol):
    """Prunes units: single weights, channels, neurons, heads or tiles.

    A `Group` names what competes, as `competitors` does: layers or, of units of several layers, sets of units.
    """

    def competitors(self, layers: Mapping[str, object]) -> Mapping[str, tuple[str, ...]]:
        """What competes, of these layers to prune, by name -> the layers whose rates apply to it."""
        ...

    def units_left(self, mask: Mask, scope: Scope) -> dict[Group, int]:
        """How much each group has left: a number of units, or what their removal is counted in."""
        ...

    def keep_best(self, scores: Mapping[str, Tensor], mask: Mask, counts: Counts) -> Mask:
        """Keep in each group exactly as many units as `counts` gives: those of the highest scores.

        Raises `InputError` if a score is NaN: no order would be exact.
        """
        ...

    def scored_layers(self, group: Group) -> tuple[str, ...]:
        """The layers whose scores decide in this group."""
        ...

    def left(self, mask: Mask, group: Group) -> Tensor:
        """Which units of the group are left: a bool vector."""
        ...

    def counts_like(self, mask: Mask) -> Counts:
        """The number of units that each competitor has left, each a group of its own."""
        ...

    def total_like(self, mask: Mask) -> Counts:
        """How much is left of all that have been pruned, as one group; see `draw`."""
        ...

    def best_like(self, scores: Mapping[str, Tensor], dense: Mask, like: Mask) -> Mask:
        """Keep the best units of each competitor, as many as `like` has left."""
        ...

    def draw(self, dense: Mask, counts: Counts, seed: int) -> Mask:
        """Keep as many random units of each group as `counts` of `counts_like` or `total_like` gives. Those of one
        seed are nested."""
        ...


class SingleWeights:
    """What structures have in common in which single weights compete."""

    def competitors(self, layers: Mapping[str, object]) -> Mapping[str, tuple[str, ...]]:
        return {name: (name,) for name in layers}

    def units_left(self, mask: Mask, scope: Scope) -> dict[Group, int]:
        return weights_left(mask, scope.groups)

    def keep_best(self, scores: Mapping[str, Tensor], mask: Mask, counts: Counts) -> Mask:
        return keep_best(scores, mask, counts)

    def scored_layers(self, group: Group) -> tuple[str, ...]:
        return group

    def left(self, mask: Mask, group: Group) -> Tensor:
        return torch.cat([mask.layers[name].flatten() for name in group])

    def counts_like(self, mask: Mask) -> Counts:
        return weights_left(mask, [(layer,) for layer in mask.layers])

    def total_like(self, mask: Mask) -> Counts:
        return weights_left(mask, [tuple(name for name, kept in mask.counts.items() if kept < mask.sizes[name])])

    def best_like(self, scores: Mapping[str, Tensor], dense: Mask, like: Mask) -> Mask:
        return self.keep_best(scores, dense, _fewer(self.counts_like(like), dense))

    def draw(self, dense: Mask, counts: Counts, seed: int) -> Mask:
        return self.keep_best(uniform(dense, seed), dense, _fewer(counts, dense))


def _fewer(counts: Counts, dense: Mask) -> Counts:
    """Without the groups that keep all they have: no structure need fit these."""
    left = weights_left(dense, [*counts])
    return {group: count for group, count in counts.items() if count < left[group]}


class Unstructured(SingleWeights):
    """Every weight is a unit."""


UNSTRUCTURED = Unstructured()
