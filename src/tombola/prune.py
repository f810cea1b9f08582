"""Pruning: scores x scope x rate -> a smaller mask, with exact counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tombola.errors import InputError
from tombola.mask import Mask


@dataclass(frozen=True)
class Group:
    """Layers whose weights compete with each other, and the rate at which they lose them.

    A scope is nothing but a way to form groups: each layer by itself, or all layers together.
    """

    layers: tuple[str, ...]
    rate: float
    """The fraction of the weights left that one pruning removes, between 0 and 1."""


def layerwise(rates: Mapping[str, float]) -> list[Group]:
    """Each layer loses its own fraction (Frankle & Carbin 2019, section 2: LeNet and Conv-2/4/6)."""
    return [Group((layer,), rate) for layer, rate in rates.items()]


def globally(layers: Iterable[str], rate: float) -> list[Group]:
    """All layers are compared together (Frankle & Carbin 2019, section 4: Resnet-18 and VGG-19)."""
    return [Group(tuple(layers), rate)]


def removed(rate: float, left: int) -> int:
    """How many of `left` weights one pruning at `rate` removes: round(rate × left), halves to even."""
    return round(rate * left)


def prune(scores: Mapping[str, Tensor], mask: Mask, groups: Sequence[Group]) -> Mask:
    """Remove from each group exactly round(rate × weights left) weights: those of the lowest scores.

    Only weights that are left compete. Equal scores are settled by index: in the order of the group's
    layers, then in row-major order, the first goes first. Layers that belong to no group are left alone.

    Raises `ValueError` when a score is NaN: no order could be exact.
    """
    kept = dict(mask)
    for group in groups:
        left = sum(int(mask[name].sum()) for name in group.layers)
        kept |= _without_worst(scores, kept, group.layers, removed(group.rate, left))
    return Mask(kept)


def keep(scores: Mapping[str, Tensor], counts: Mapping[tuple[str, ...], int]) -> Mask:
    """The mask of the best weights: of each group of layers as many as `counts` says; all of layers not named there.

    Equal scores are settled as in `prune`. Raises `ValueError` when a score is NaN.
    """
    kept = {name: torch.ones(score.shape, dtype=torch.bool) for name, score in scores.items()}
    for layers, count in counts.items():
        kept |= _without_worst(scores, kept, layers, sum(kept[name].numel() for name in layers) - count)
    return Mask(kept)


def _without_worst(
    scores: Mapping[str, Tensor], kept: Mapping[str, Tensor], layers: Sequence[str], count: int
) -> dict[str, Tensor]:
    """These layers' masks without the `count` weights of lowest scores among those left."""
    left = torch.cat([kept[name].flatten() for name in layers])
    worth = torch.cat([scores[name].detach().cpu().flatten() for name in layers])
    candidates = left.nonzero().squeeze(1)
    if worth[candidates].isnan().any():
        raise ValueError(f"the scores of {', '.join(layers)} are not all numbers")
    worst_first = candidates[torch.argsort(worth[candidates], stable=True)]
    left[worst_first[:count]] = False
    parts = torch.split(left, [kept[name].numel() for name in layers])
    return {name: part.view_as(kept[name]) for name, part in zip(layers, parts, strict=True)}


def check_rounds(mask: Mask, groups: Sequence[Group], rounds: int) -> None:
    """Refuse a schedule that is bound to leave a group of layers empty, or to go on when nothing is removed.

    Raises `InputError` that says at which level, and how many levels would be right. In a group of several
    layers one of them may still run empty; which one is known only after training (see `Mask.empty_layers`).
    """
    left = [sum(mask.sizes[name] for name in group.layers) for group in groups]
    for level in range(1, rounds + 1):
        losses = [removed(group.rate, weights) for group, weights in zip(groups, left, strict=True)]
        advice = f"; set search.levels to at most {level - 1}, or another rate"
        if not any(losses):
            raise InputError(f"search: at level {level} pruning would remove nothing{advice}")
        for index, group in enumerate(groups):
            if losses[index] == left[index]:
                what = f"layer {group.layers[0]}" if len(group.layers) == 1 else "the network"
                raise InputError(
                    f"search: pruning at rate {group.rate:g} leaves {what} "
                    f"({sum(mask.sizes[name] for name in group.layers):,} weights) empty at level {level}{advice}"
                )
        left = [weights - loss for weights, loss in zip(left, losses, strict=True)]
