"""UnitStructure: units that are pruned as a whole, and how they compete."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tombola.pruning.mask import Mask
from tombola.pruning.ranking import check_no_nan
from tombola.pruning.scopes import Counts, ErdosRenyi, Group, Scope
from tombola.pruning.structures.removal import RemovalOrder
from tombola.pruning.structures.units import CompetingUnits, GroupScore, WeightUnits
from tombola.utils.errors import InputError

Cost = Literal["units", "weights", "macs"]
COSTS: dict[Cost, str] = {"units": "units", "weights": "weights", "macs": "multiply-adds"}
"""What a density or rate is a fraction of, and its name in messages."""


@dataclass(frozen=True)
class UnitStructure:
    """Prunes the units of sets: exact numbers of those with the lowest scores.

    Among equal scores, the one with the smallest id is pruned first. Groups are named by sets. With another `cost`
    than units, there is one group of all sets, and its counts are those of weights, or multiply-adds, of the whole
    mask: as few units go as get it to the count or just below.
    """

    units: WeightUnits
    what: str
    """The name of the units in errors, such as "neurons"."""
    group_score: GroupScore = "mean"
    round_to: int = 1
    """What a set keeps is a multiple of this, and at least this, unless it has fewer; 0: it may become empty."""
    cost: Cost = "units"
    weight_costs: Mapping[str, float] | None = None
    """By layer: the multiply-adds of a weight for one example, which the cost "macs" needs; None if unknown."""
    together: bool = False
    """Whether the units of several sets in one group compete by their scores; otherwise each set gives the same
    fraction."""
    normalised: bool = True
    """Whether scores are divided by the mean of their set where sets compete."""

    @cached_property
    def _sets(self) -> dict[str, CompetingUnits]:
        return {each.name: each for each in self.units.sets}

    def competitors(self, layers: Mapping[str, object]) -> Mapping[str, tuple[str, ...]]:
        """Raises `InputError` if there are none."""
        if not (
            found := {each.name: each.layers for each in self.units.sets if not layers.keys().isdisjoint(each.layers)}
        ):
            raise InputError(f"structure: no layer to prune has {self.what}")
        return found

    def units_left(self, mask: Mask, scope: Scope) -> dict[Group, int]:
        """Raises `InputError` if the scope is for single weights only."""
        if isinstance(scope, ErdosRenyi):
            raise InputError(f'scope: "erk" counts single weights; use "layer" or "global" with {self.what}')
        if self.cost != "units":
            return dict.fromkeys(scope.groups, self._cost_without(mask, torch.zeros(0, dtype=torch.int64)))
        left = self.units.left(mask)
        return {group: sum(int(left[ids].sum()) for ids in self._ids(group)) for group in scope.groups}

    def keep_best(self, scores: Mapping[str, Tensor], mask: Mask, counts: Counts) -> Mask:
        among = self._among(name for group in counts for name in group)
        return self._keep(self.units.scores(scores, mask, self.group_score, among), mask, counts)

    def scored_layers(self, group: Group) -> tuple[str, ...]:
        return self.units.layers(self._among(group))

    def left(self, mask: Mask, group: Group) -> Tensor:
        left = self.units.left(mask)
        return torch.cat([left[ids] for ids in self._ids(group)])

    def counts_like(self, mask: Mask) -> Counts:
        left = self.units.left(mask)
        return {(each.name,): int(left[each.ids].sum()) for each in self.units.sets}

    def total_like(self, mask: Mask) -> Counts:
        """Of one set the number of units; of several that of all weights of the mask."""
        pruned = tuple(name for (name,), left in self.counts_like(mask).items() if left < len(self._sets[name].ids))
        if len(pruned) == 1:
            return {pruned: self.counts_like(mask)[pruned]}
        return {pruned: mask.count} if pruned else {}

    def best_like(self, scores: Mapping[str, Tensor], dense: Mask, like: Mask) -> Mask:
        exact = replace(self, cost="units", round_to=0, together=False)
        return exact.keep_best(scores, dense, self.counts_like(like))

    def draw(self, dense: Mask, counts: Counts, seed: int) -> Mask:
        """Where sets are drawn from together, the number of weights is the count or just below."""
        for group, count in counts.items():
            joint = len(group) > 1
            plain = replace(
                self, cost="weights" if joint else "units", round_to=int(joint), together=True, normalised=False
            )
            dense = plain.keep_random(dense, {group: count}, seed)
        return dense

    def keep_random(self, mask: Mask, counts: Counts, seed: int) -> Mask:
        """`keep_best`, by random scores of units."""
        return self._keep(torch.from_numpy(np.random.default_rng(seed).random(self.units.count)), mask, counts)

    def least(self, mask: Mask, scope: Scope) -> dict[Group, int]:
        """What each group keeps if as much is pruned as can be."""
        left, found = self.units.left(mask), dict[Group, int]()
        for group in scope.groups:
            left_ids = self._left_ids(left, group)
            equal = torch.zeros(self.units.count, dtype=torch.float64)
            gone = RemovalOrder.of(left_ids, equal, self.round_to, self.together).units
            units = sum(map(len, left_ids)) - len(gone)
            found[group] = units if self.cost == "units" else self._cost_without(mask, gone)
        return found

    def _keep(self, worth: Tensor, mask: Mask, counts: Counts) -> Mask:
        """Keep units by what they are worth, by id."""
        left = self.units.left(mask)
        kept = torch.ones_like(left)
        for group, count in counts.items():
            left_ids = self._left_ids(left, group)
            order = RemovalOrder.of(left_ids, self._comparable(worth, left_ids, group), self.round_to, self.together)
            if self.cost == "units":
                gone = order.until(sum(map(len, left_ids)) - count)
            else:
                gone = order.while_above(count, partial(self._cost_without, mask))
            kept[gone] = False
        return self.units.keep(mask, kept)

    def _comparable(self, worth: Tensor, sets: Sequence[Tensor], group: Group) -> Tensor:
        """What units are worth, divided by the mean magnitude of their set if sets compete."""
        for ids in sets:
            check_no_nan(worth[ids], group)
        if not (self.normalised and self.together and len(sets) > 1):
            return worth
        worth = worth.clone()
        for ids in sets:
            finite = worth[ids][worth[ids].isfinite()].abs()
            if len(finite) and (mean := finite.mean()) > 0:
                worth[ids] /= mean
        return worth

    def _cost_without(self, mask: Mask, gone: Tensor) -> int:
        """What is left of the mask without these units."""
        kept = torch.ones(self.units.count, dtype=torch.bool).index_fill_(0, gone, False)
        return self.units.cost(mask, kept, self.weight_costs if self.cost == "macs" else None)

    def _ids(self, group: Group) -> list[Tensor]:
        return [self._sets[name].ids for name in group]

    def _left_ids(self, left: Tensor, group: Group) -> list[Tensor]:
        return [ids[left[ids]] for ids in self._ids(group)]

    def _among(self, names: Iterable[str]) -> Tensor:
        """Which units belong to these sets: bool, by id."""
        among = torch.zeros(self.units.count, dtype=torch.bool)
        for name in names:
            among[self._sets[name].ids] = True
        return among
