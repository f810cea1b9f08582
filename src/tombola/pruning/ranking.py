"""Ranking: keep the weights with the highest scores, an exact number of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tombola.pruning.layers import by_layer
from tombola.pruning.mask import Mask
from tombola.pruning.scopes import Counts, Group
from tombola.utils.errors import InputError


def keep_best(scores: Mapping[str, Tensor], mask: Mask, counts: Counts) -> Mask:
    """Keep in each group of layers exactly as many weights as `counts` gives: those of the highest scores.

    Only weights that `mask` keeps compete. Among equal scores the first is removed first: in the order of the group's
    layers, then in row-major order. Layers that belong to no group stay as they are. Raises `InputError` if a score
    is NaN: no order would be exact.
    """
    kept, scores = mask.layers, by_layer(scores)
    changed: dict[str, Tensor] = {}
    for group, count in counts.items():
        left = torch.cat([kept[name].flatten() for name in group])
        values = torch.cat([scores[name].detach().cpu().flatten() for name in group])
        parts = torch.split(select_best(values, left, count, group), [kept[name].numel() for name in group])
        changed |= {name: part.view_as(kept[name]) for name, part in zip(group, parts, strict=True)}
    return mask.with_layers(changed)


def select_best(scores: Tensor, left: Tensor, count: int, layers: Group) -> Tensor:
    """Which `count` of the entries `left` have the highest scores, by the rule of `keep_best`. All are vectors."""
    candidates = left.nonzero().squeeze(1)
    scores = scores.index_select(0, candidates)
    check_no_nan(scores, layers)
    excess = len(candidates) - count
    kept = left.clone()
    if excess > 0:  # selecting takes a tenth of the time of sorting
        threshold = scores.kthvalue(excess).values
        lower = candidates.masked_select(scores < threshold)
        equal = candidates.masked_select(scores == threshold)
        kept[lower] = False
        kept[equal[: excess - len(lower)]] = False
    return kept


def check_no_nan(scores: Tensor, layers: Group) -> None:
    """Raises `InputError`, which names the `layers`, if a score is NaN."""
    if scores.isnan().any():
        raise InputError(f"score: some scores of {', '.join(layers)} are NaN, so they cannot be ranked")


def check_not_all_equal(scores: Sequence[Tensor], layers: Group) -> None:
    """Raises `InputError`, which names the `layers`, if all scores are equal: only the place would decide."""
    lows, highs = zip(*(part.aminmax() for part in scores if part.numel()), strict=True)
    if (low := min(map(float, lows))) == max(map(float, highs)):
        names = ", ".join(name.removesuffix(".weight") for name in layers[:5]) + (", ..." if len(layers) > 5 else "")
        raise InputError(
            f"score: all scores of {names} are equal ({low:g}), so no choice is possible: use another score, or "
            "leave layers out with leave_out"
        )
