"""Units: sets of weights that are pruned whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tombola.pruning.mask import Mask
from tombola.pruning.ranking import best
from tombola.pruning.scopes import Counts, ErdosRenyi, Group, Scope
from tombola.utils.errors import InputError

NONE = -1
"""In place of the number of a unit: a weight that belongs to none, and is never pruned."""


@dataclass(frozen=True)
class UnitStructure:
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
        if scope.groups not in self._made:
            self._made[scope.groups] = self._groups(scope.groups)
        return {group: int(self._left(mask, group).sum()) for group in self._made[scope.groups]}

    def keep_best(self, scores: Mapping[str, Tensor], mask: Mask, counts: Counts) -> Mask:
        """See `Structure`."""
        kept = dict(mask)
        for group, count in counts.items():
            stays = best(self._worth(scores, mask, group), self._left(mask, group), count, group)
            for name in group:
                ids = self.ids[name]
                kept[name] = kept[name] & (stays[ids.clamp(min=0)] | (ids == NONE))
        return Mask(kept)

    @cached_property
    def _made(self) -> dict[tuple[Group, ...], list[Group]]:
        """The groups of a scope's, once they are made."""
        return {}

    @cached_property
    def _count(self) -> int:
        return 1 + max((int(ids.max()) for ids in self.ids.values()), default=NONE)

    def _left(self, mask: Mask, group: Group) -> Tensor:
        """Which units have a weight left in these layers: bool."""
        left = torch.zeros(1 + self._count, dtype=torch.bool)  # first, what belongs to none
        for name in group:
            left.index_fill_(0, self.ids[name][mask[name]] - NONE, True)
        return left[1:]

    def _worth(self, scores: Mapping[str, Tensor], mask: Mask, group: Group) -> Tensor:
        """The mean score of each unit's weights that are left: float64; 0 where none is."""
        total, weights = torch.zeros(2, self._count, dtype=torch.float64)
        for name in group:
            among = mask[name] & (self.ids[name] != NONE)
            ids, values = self.ids[name][among], scores[name].detach().cpu()[among].double()
            total.index_add_(0, ids, values)
            weights.index_add_(0, ids, torch.ones_like(values))
        return torch.div(total, weights.clamp(min=1))

    def _groups(self, of_scopes: tuple[Group, ...]) -> list[Group]:
        """The scope's groups without layers that have no units; those that share a unit made one."""
        groups: list[Group] = []
        for of_scope in of_scopes:
            group = tuple(name for name in of_scope if self._numbers.get(name))
            coupled = [other for other in groups if self._share(group, other)]
            groups = [other for other in groups if other not in coupled]
            if group:
                groups.append(tuple(name for other in (*coupled, group) for name in other))
        if not groups:
            raise InputError(f"structure: no layer that is pruned has {self.what}")
        pruned = tuple(name for group in groups for name in group)
        for name in self._numbers:
            if name not in pruned and self._share((name,), pruned):
                layer = name.removesuffix(".weight")
                raise InputError(f"structure: {layer} shares its {self.what} with layers that are pruned, and is not")
        return groups

    def _share(self, some: Group, others: Group) -> bool:
        return any(not self._numbers[a].isdisjoint(self._numbers[b]) for a in some for b in others)

    @cached_property
    def _numbers(self) -> dict[str, frozenset[int]]:
        """By layer: the numbers of its units."""
        return {name: frozenset(torch.unique(ids).tolist()) - {NONE} for name, ids in self.ids.items()}
