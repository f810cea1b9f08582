"""Units: sets of weights that are pruned whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tombola.errors import InputError
from tombola.mask import Mask
from tombola.ranking import best
from tombola.scopes import Counts, ErdosRenyi, Group, Scope

NONE = -1
"""In place of the number of a unit: a weight that belongs to none, and is never pruned."""


@dataclass(frozen=True)
class Units:
    """Which unit each weight belongs to.

    A unit is left while any of its weights is, and is worth the mean score of its weights that are left. One that
    goes takes all its weights along. Of equal units the one of the smallest number goes first.
    """

    ids: Mapping[str, Tensor]
    """By layer: int64 of the weight's shape, the numbers of units from 0 on, or `NONE`. Layers that share a number
    share the unit, and so compete together whatever the scope, at the rate of the first. Layers without units may be
    missing."""
    what: str
    """What they are, for errors: "neurons"."""

    def left(self, mask: Mask, scope: Scope) -> dict[Group, int]:
        """See `Structure`. Raises `InputError` where no layer of the scope has units, where a unit lies only partly
        in the scope, or where the scope speaks of weights alone."""
        if isinstance(scope, ErdosRenyi):
            raise InputError(
                f'scope: "erk" says how many weights a layer keeps; with {self.what} use layer or global'
            )
        return {group: int(self._left(mask, group).sum()) for group in self._groups(scope)}

    def keep_best(self, scores: Mapping[str, Tensor], mask: Mask, counts: Counts) -> Mask:
        """See `Structure`."""
        kept = dict(mask)
        for group, count in counts.items():
            stays = best(self._worth(scores, mask, group), self._left(mask, group), count, group)
            for name in group:
                ids = self.ids[name]
                kept[name] = kept[name] & (stays[ids.clamp(min=0)] | (ids == NONE))
        return Mask(kept)

    @property
    def _count(self) -> int:
        return 1 + max((int(ids.max()) for ids in self.ids.values()), default=NONE)

    def _left(self, mask: Mask, group: Group) -> Tensor:
        """Which units have a weight left in these layers: bool."""
        left = torch.zeros(self._count, dtype=torch.bool)
        for name in group:
            left[self.ids[name][mask[name] & (self.ids[name] != NONE)]] = True
        return left

    def _worth(self, scores: Mapping[str, Tensor], mask: Mask, group: Group) -> Tensor:
        """The mean score of each unit's weights that are left: float64; 0 where none is."""
        total, weights = torch.zeros(2, self._count, dtype=torch.float64)
        for name in group:
            among = mask[name] & (self.ids[name] != NONE)
            ids, values = self.ids[name][among], scores[name].detach().cpu()[among].double()
            total.index_add_(0, ids, values)
            weights.index_add_(0, ids, torch.ones_like(values))
        return torch.div(total, weights.clamp(min=1))

    def _groups(self, scope: Scope) -> list[Group]:
        """The scope's groups without layers that have no units; those that share a unit made one."""
        groups: list[Group] = []
        for of_scope in scope.groups:
            group = tuple(name for name in of_scope if name in self._layers)
            mine = self._numbers(group)
            coupled = [other for other in groups if mine & self._numbers(other)]
            groups = [other for other in groups if other not in coupled]
            if group:
                groups.append(tuple(name for other in (*coupled, group) for name in other))
        if not groups:
            raise InputError(f"structure: no layer that is pruned has {self.what}")
        pruned = {name for group in groups for name in group}
        for name in self._layers:
            shared = self._numbers((name,)) & self._numbers(tuple(pruned))
            if name not in pruned and shared:
                layer = name.removesuffix(".weight")
                raise InputError(f"structure: {layer} shares its {self.what} with layers that are pruned, and is not")
        return groups

    @property
    def _layers(self) -> list[str]:
        return [name for name, ids in self.ids.items() if bool((ids != NONE).any())]

    def _numbers(self, group: Group) -> set[int]:
        return {number for name in group for number in torch.unique(self.ids[name]).tolist()} - {NONE}
