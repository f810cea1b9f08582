"""RemovalOrder: in which order units go, a multiple of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RemovalOrder:
    """Units in the order in which they go, in steps of one or several."""

    units: Tensor
    """The ids of all that can go: int64."""
    ends: Tensor
    """By step: how many have gone after it."""

    @staticmethod
    def of(sets: Sequence[Tensor], scores: Tensor, round_to: int, together: bool) -> RemovalOrder:
        """`sets` are the ids of alternatives; `scores` are by id. The lowest goes first, of equals the first.

        What is left of a set is a multiple of `round_to`, at least that or, if it has no more, all of it; with 0 it
        may be any number, none too. The sets compete by the mean scores of such multiples if `together`; otherwise
        the same fraction of each goes, as far as their numbers permit.
        """
        step, units, sizes, order = max(round_to, 1), [], [], []
        for ids in sets:
            goes = _sizes(len(ids), step, least=min(len(ids), step) if round_to else 0)
            ids = ids[scores[ids].argsort(stable=True)][: int(goes.sum())]
            worth = goes.cumsum(0) / max(len(ids), 1)
            if together:
                index = torch.repeat_interleave(torch.arange(len(goes)), goes)
                worth = torch.zeros(len(goes), dtype=torch.float64).index_add_(0, index, scores[ids]) / goes
            units.append(ids)
            sizes.append(goes)
            order.append(worth.double())
        ranks = torch.cat(order).argsort(stable=True)
        every, all_sizes = torch.cat(units), torch.cat(sizes)
        starts = all_sizes.cumsum(0) - all_sizes
        ends = all_sizes[ranks].cumsum(0)
        offsets = torch.arange(len(every)) - torch.repeat_interleave(ends - all_sizes[ranks], all_sizes[ranks])
        return RemovalOrder(every[torch.repeat_interleave(starts[ranks], all_sizes[ranks]) + offsets], ends)

    def until(self, count: int) -> Tensor:
        """The units to remove so that at least `count` go, or all that can; as few as the steps permit."""
        steps = int(torch.searchsorted(self.ends, count)) if count > 0 else -1
        return self._first(min(steps, len(self.ends) - 1))

    def while_above(self, limit: int, cost: Callable[[Tensor], int]) -> Tensor:
        """The units to remove so that the `cost` without them, which each step lowers, is at most `limit`; as few as
        the steps permit, all if none of them is enough."""
        low, high = -1, len(self.ends) - 1
        while low < high:
            middle = (low + high) // 2
            if cost(self._first(middle)) <= limit:
                high = middle
            else:
                low = middle + 1
        return self._first(high)

    def _first(self, step: int) -> Tensor:
        return self.units[: int(self.ends[step])] if step >= 0 else self.units[:0]


def _sizes(count: int, step: int, least: int) -> Tensor:
    """How many of `count` units go in each step: first what is more than a multiple, then a multiple at a time."""
    if count <= least:
        return torch.zeros(0, dtype=torch.int64)
    first = (count - 1) % step + 1
    return torch.tensor([first] + [step] * ((count - least - first) // step))
