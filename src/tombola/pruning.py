"""Pruning: score x scope -> a smaller mask, with exact counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tombola.mask import Mask
from tombola.scopes import Counts, Group, Scope, weights_left
from tombola.scores import Score
from tombola.scores.grounds import Grounds


@dataclass(frozen=True)
class Pruner:
    """How a search prunes."""

    score: Score
    scope: Scope

    def __call__(self, grounds: Grounds) -> Mask:
        """The smaller mask, one pruning after that of `grounds`."""
        counts = self.scope.keeps(weights_left(grounds.mask, self.scope.groups))
        return keep_best(self.score(grounds), grounds.mask, counts)


def keep_best(scores: Mapping[str, Tensor], mask: Mask, counts: Counts) -> Mask:
    """Keep in each group exactly as many weights as `counts` says: those of the highest scores.

    Only weights that are left compete. Equal scores are settled by index: in the order of the group's
    layers, then in row-major order, the first goes first. Layers that belong to no group are left alone.

    Raises `ValueError` when a score is NaN: no order could be exact.
    """
    kept = dict(mask)
    for group, count in counts.items():
        kept |= _best(scores, kept, group, count)
    return Mask(kept)


def _best(scores: Mapping[str, Tensor], kept: Mapping[str, Tensor], group: Group, count: int) -> dict[str, Tensor]:
    """The masks of these layers with the `count` weights of highest scores among those left."""
    left = torch.cat([kept[name].flatten() for name in group])
    worth = torch.cat([scores[name].detach().cpu().flatten() for name in group])
    candidates = left.nonzero().squeeze(1)
    if worth[candidates].isnan().any():
        raise ValueError(f"the scores of {', '.join(group)} are not all numbers")
    worst_first = candidates[torch.argsort(worth[candidates], stable=True)]
    left[worst_first[: len(candidates) - count]] = False
    parts = torch.split(left, [kept[name].numel() for name in group])
    return {name: part.view_as(kept[name]) for name, part in zip(group, parts, strict=True)}
