"""WeightUnits: weights that are kept or pruned as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from tombola.pruning.layers import by_layer
from tombola.pruning.mask import Mask

NO_UNIT = -1
"""The id of weights that belong to no unit."""

GroupScore = Literal["mean", "sum", "norm"]
GROUP_SCORES: tuple[GroupScore, ...] = ("mean", "sum", "norm")
"""What the score of a unit is of those of its weights: mean, sum, or the root of the sum of squares."""


@dataclass(frozen=True)
class CompetingUnits:
    """Units that are alternatives to each other, such as the channels of a tensor."""

    name: str
    """That of the first of `layers`, unless another set has it."""
    ids: Tensor
    """int64, in ascending order."""
    layers: tuple[str, ...]
    """Those whose outputs the units are; what is said of their rates applies to the set."""


@dataclass(frozen=True)
class WeightUnits:
    """The units that each weight belongs to. A weight is kept if and only if all its units are; a unit is left as
    long as any of its weights is."""

    ids: Mapping[str, tuple[Tensor, ...]]
    """By layer: tensors of the ids of units, from 0, or `NO_UNIT`. They are int64 and broadcast to the weight, which
    belongs to the units of all of them. Layers without units may be missing."""
    sets: tuple[CompetingUnits, ...]
    """Those units that can be pruned."""

    def layers(self, among: Tensor) -> tuple[str, ...]:
        """The layers with weights of some of these units: bool, by id."""
        return tuple(name for name, units in self._by_layer.items() if among[units].any())

    @cached_property
    def _by_layer(self) -> dict[str, Tensor]:
        """The units of each layer, each once: finding them takes longer than most of pruning."""
        found = {name: torch.cat([torch.unique(ids) for ids in tensors]) for name, tensors in self.ids.items()}
        return {name: units[units != NO_UNIT] for name, units in found.items()}

    @cached_property
    def count(self) -> int:
        """More than any id."""
        return 1 + max((int(units.max()) for units in self._by_layer.values() if len(units)), default=NO_UNIT)

    def left(self, mask: Mask) -> Tensor:
        """Whether each unit has a weight left: bool, by id."""
        left = torch.zeros(1 + self.count, dtype=torch.bool)  # the first entry is for NO_UNIT
        for name, tensors in self.ids.items():
            for ids in tensors:
                left.index_fill_(0, ids[_summed(mask.layers[name], ids) > 0] - NO_UNIT, True)
        return left[1:]

    def scores(self, scores: Mapping[str, Tensor], mask: Mask, how: GroupScore, among: Tensor) -> Tensor:
        """The score of each unit: float64, by id; 0 if it has no weight left, or is not `among` (bool, by id) those
        asked for, whose layers alone must have scores."""
        total, weights = torch.zeros(2, 1 + self.count, dtype=torch.float64)
        parts = by_layer(scores)
        for name in self.layers(among):
            kept = mask.layers[name]
            values = torch.where(kept, parts[name].detach().cpu().double(), 0.0)
            if how == "norm":
                values = values.square()
            for ids in self.ids[name]:
                places = ids.flatten() - NO_UNIT
                total.index_add_(0, places, _summed(values, ids).flatten())
                weights.index_add_(0, places, _summed(kept, ids).flatten().double())
        found = {"mean": total / weights.clamp(min=1), "sum": total, "norm": total.sqrt()}[how]
        return torch.where(among, found[1:], 0.0)

    def keep(self, mask: Mask, kept_units: Tensor) -> Mask:
        """The mask in which a weight is left only if all its units are among the `kept_units`: bool, by id."""
        return mask.with_layers({name: self._kept(mask, name, kept_units) for name in self.ids})

    def cost(self, mask: Mask, kept_units: Tensor, weight_costs: Mapping[str, float] | None) -> int:
        """What is left of the mask with these units: the number of weights, in all layers; or the sum of what each of
        them costs, by layer (0 if it is missing)."""
        costs = dict.fromkeys(mask.layers, 1.0) if weight_costs is None else weight_costs
        layers = {name: cost for name, cost in costs.items() if cost and name in mask.layers}
        return round(
            sum(
                cost * int((self._kept(mask, name, kept_units) if name in self.ids else mask.layers[name]).sum())
                for name, cost in layers.items()
            )
        )

    def _kept(self, mask: Mask, name: str, kept_units: Tensor) -> Tensor:
        padded = torch.cat([torch.ones(1, dtype=torch.bool), kept_units])
        kept = mask.layers[name]
        for ids in self.ids[name]:
            kept = kept & padded[ids - NO_UNIT]
        return kept


def _summed(values: Tensor, ids: Tensor) -> Tensor:
    """Values of weights, summed where `ids` are broadcast: of the shape of these."""
    axes = [axis for axis, size in enumerate(ids.shape) if size < values.shape[axis]]
    return values.sum(axes, keepdim=True) if axes else values
