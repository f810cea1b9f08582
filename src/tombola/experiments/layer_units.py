"""Units by layer: how many units a mask keeps, for structures that prune units, and their multiply-adds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from tombola.graph.ties import IntArray
from tombola.pruning.layers import layer_rows
from tombola.pruning.mask import Mask
from tombola.pruning.structures import Structure, UnitStructure
from tombola.pruning.structures.units import NO_UNIT, WeightUnits


@dataclass(frozen=True)
class UnitStats:
    """What is left of one parameter."""

    outputs: int | None = None
    """The number of units of its outputs that have a weight left, anywhere in the network; None if its outputs belong
    to no units, as with tiles."""
    inputs: int | None = None
    """The same for its inputs."""
    multiply_adds: int | None = None
    """The multiply-adds of its kept weights for one example; None if unknown."""


def unit_stats(structure: Structure, mask: Mask) -> dict[str, UnitStats]:
    """By parameter; empty for a structure without units."""
    if not isinstance(structure, UnitStructure):
        return {}
    units, costs, left = structure.units, structure.weight_costs, structure.units.left(mask).numpy()
    found = {}
    for name, kept in mask.items():
        layers = layer_rows(name, tuple(kept.shape))
        sides: dict[str, list[IntArray]] = {}
        for layer in layers:
            for side, ids in _sides(units, layer):
                sides.setdefault(side, []).append(ids)
        counts = {side: int(left[np.unique(np.concatenate(ids))].sum()) for side, ids in sides.items()}
        work = None if costs is None else sum(costs[layer] * int(mask.layers[layer].sum()) for layer in layers)
        found[name] = UnitStats(counts.get("outputs"), counts.get("inputs"), None if work is None else round(work))
    return found


def _sides(units: WeightUnits, layer: str) -> Iterator[tuple[str, IntArray]]:
    """The units along each axis of a layer. Its outputs are along the first axis whose units it produces; it may also
    read these units."""
    produced = [each.ids.numpy() for each in units.sets if layer in each.layers]
    side = "outputs" if produced else "inputs"
    for ids in filter(_is_along_one_axis, units.ids.get(layer, ())):
        there = np.setdiff1d(ids.numpy(), [NO_UNIT])
        is_output = side == "outputs" and bool(np.isin(there, np.concatenate(produced)).all())
        yield ("outputs" if is_output else "inputs"), there
        side = "inputs" if is_output else side


def _is_along_one_axis(ids: Tensor) -> bool:
    return ids.numel() == max(ids.shape, default=0)
