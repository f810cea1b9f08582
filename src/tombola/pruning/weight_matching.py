"""Weight matching: which hidden units of two trained networks correspond to each other."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tombola.pruning.exchangeable_units import ExchangeableUnits, UnitEntries, UnitPermutation, reorder

MAX_PASSES = 100
"""Passes over all groups; a few suffice in general."""


def match_weights(
    units: ExchangeableUnits, first: Mapping[str, Tensor], second: Mapping[str, Tensor]
) -> UnitPermutation:
    """The permutation of the second network's units that brings its parameters close to those of the first (Ainsworth
    et al. 2022, "Git Re-Basin: Merging Models modulo Permutation Symmetries", section 3.2, algorithm 1).

    It maximises the inner product of all parameters by coordinate descent: with the other groups as they are, the
    best order of one group solves a linear assignment problem. It begins with the given order and visits the groups
    in the order of the network, so nothing is drawn; the paper visits them in random order. The result is a local
    optimum. Statistics of batch norm do not count. The states must be finite.
    """
    from scipy.optimize import linear_sum_assignment  # takes a while to import

    orders = [torch.arange(group.size) for group in units.groups]
    for _ in range(MAX_PASSES):
        improved = False
        for at, group in enumerate(units.groups):
            similarity = torch.zeros(group.size, group.size, dtype=torch.float64)
            for each in group.entries:
                if each.name in units.parameters:
                    aligned = _aligned(units, orders, second[each.name], each)
                    similarity += _by_unit(first[each.name], each) @ _by_unit(aligned, each).T
            _, columns = linear_sum_assignment(similarity.numpy(), maximize=True)
            order = torch.from_numpy(columns)
            best, now = (float(similarity[torch.arange(group.size), each].sum()) for each in (order, orders[at]))
            if best > now + 1e-9 * abs(best):
                orders[at], improved = order, True
        if not improved:
            break
    return UnitPermutation(units, orders)


def _aligned(units: ExchangeableUnits, orders: list[Tensor], tensor: Tensor, but: UnitEntries) -> Tensor:
    """A tensor of the second network, aligned by the present orders except along the entries `but`."""
    for group, order in zip(units.groups, orders, strict=True):
        for each in group.entries:
            if each.name == but.name and each is not but:
                tensor = reorder(tensor, each, order)
    return tensor


def _by_unit(tensor: Tensor, entries: UnitEntries) -> Tensor:
    """float64 of shape (units, values of each)."""
    return tensor.detach().cpu().double().movedim(entries.axis, 0)[entries.indices].flatten(1)
