"""UnitStructure: sets of weights that are pruned as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tombola.pruning.layers import by_layer, display_name
from tombola.pruning.mask import Mask
from tombola.pruning.ranking import select_best
from tombola.pruning.scopes import Counts, ErdosRenyi, Group, Scope
from tombola.utils.errors import InputError

NO_UNIT = -1
"""The id of a weight that belongs to no unit, and is never pruned."""


@dataclass(frozen=True)
class UnitStructure:
    """The unit that each weight belongs to.

    A unit is left as long as any of its weights is; its score is the mean score of its weights that are left. A unit
    is pruned with all its weights; among equal scores, the one with the smallest id is pruned first.
    """

    ids: Mapping[str, Tensor]
    """By layer: the ids of units, from 0, or `NO_UNIT`; int64 of the weight's shape. Layers with a common id share
    that unit, so they compete with each other in every scope, at the rate of the first. Layers without units may be
    missing."""
    what: str
    """The name of the units in errors, such as "neurons"."""

    def units_left(self, mask: Mask, scope: Scope) -> dict[Group, int]:
        """Raises `InputError` if no layer of the scope has units, if a unit is only partly in the scope, or if the
        scope is for single weights only."""
        if isinstance(scope, ErdosRenyi):
            raise InputError(f'scope: "erk" counts single weights; use "layer" or "global" with {self.what}')
        if scope.groups not in self._groups_of_scopes:
            self._groups_of_scopes[scope.groups] = self._groups(scope.groups)
        return {group: int(self._left(mask, group).sum()) for group in self._groups_of_scopes[scope.groups]}

    def keep_best(self, scores: Mapping[str, Tensor], mask: Mask, counts: Counts) -> Mask:
        kept, scores = dict(mask.layers), by_layer(scores)
        for group, count in counts.items():
            best = select_best(self._unit_scores(scores, mask, group), self._left(mask, group), count, group)
            for name in group:
                ids = self.ids[name]
                kept[name] = kept[name] & (best[ids.clamp(min=0)] | (ids == NO_UNIT))
        return mask.with_layers(kept)

    @cached_property
    def _groups_of_scopes(self) -> dict[tuple[Group, ...], list[Group]]:
        """By groups of a scope: the result of `_groups`."""
        return {}

    @cached_property
    def _count(self) -> int:
        return 1 + max((int(ids.max()) for ids in self.ids.values()), default=NO_UNIT)

    def _left(self, mask: Mask, group: Group) -> Tensor:
        """Whether each unit has a weight left in these layers: bool, by id."""
        left = torch.zeros(1 + self._count, dtype=torch.bool)  # the first entry is for NO_UNIT
        for name in group:
            left.index_fill_(0, self.ids[name][mask.layers[name]] - NO_UNIT, True)
        return left[1:]

    def _unit_scores(self, scores: Mapping[str, Tensor], mask: Mask, group: Group) -> Tensor:
        """The mean score of each unit's weights that are left: float64, by id; 0 if none is left."""
        total, weights = torch.zeros(2, self._count, dtype=torch.float64)
        for name in group:
            among = mask.layers[name] & (self.ids[name] != NO_UNIT)
            ids, values = self.ids[name][among], scores[name].detach().cpu()[among].double()
            total.index_add_(0, ids, values)
            weights.index_add_(0, ids, torch.ones_like(values))
        return torch.div(total, weights.clamp(min=1))

    def _groups(self, scope_groups: tuple[Group, ...]) -> list[Group]:
        """The scope's groups, without layers that have no units; groups that share a unit are merged."""
        groups: list[Group] = []
        for scope_group in scope_groups:
            group = tuple(name for name in scope_group if self._unit_ids.get(name))
            coupled = [other for other in groups if self._share(group, other)]
            groups = [other for other in groups if other not in coupled]
            if group:
                groups.append(tuple(name for other in (*coupled, group) for name in other))
        if not groups:
            raise InputError(f"structure: no layer to prune has {self.what}")
        pruned = tuple(name for group in groups for name in group)
        for name in self._unit_ids:
            if name not in pruned and self._share((name,), pruned):
                layer = display_name(name)
                raise InputError(f"structure: {layer} is left out, but shares its {self.what} with layers to prune")
        return groups

    def _share(self, some: Group, others: Group) -> bool:
        return any(not self._unit_ids[a].isdisjoint(self._unit_ids[b]) for a in some for b in others)

    @cached_property
    def _unit_ids(self) -> dict[str, frozenset[int]]:
        return {name: frozenset(torch.unique(ids).tolist()) - {NO_UNIT} for name, ids in self.ids.items()}
