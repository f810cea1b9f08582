"""Keeping: the units that a network's outputs depend on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tombola.exports.coupling import CoupledLayer, CoupledUnits, Flags

NEAR = 0.1
"""A constant stands for another if it is at least so much of it; dividing by a smaller one would cost digits."""


@dataclass(frozen=True)
class Kept:
    """Of every unit of a network, whether it is there still."""

    used: Flags
    """Those that the outputs depend on."""
    present: Flags
    """Those, and where a tensor has none of them, one that nothing reads: there are no tensors without units."""


def kept(units: CoupledUnits) -> Kept:
    """The fewest units that leave a network's outputs what they are.

    A unit is used if a step that cannot change reads it, or if a used unit reads it by a weight that is not zero;
    a constant unit is not, because its readers can have it in their bias. Only behind padding a constant cannot be
    in a bias; there, one constant unit stands for all others.
    """
    used = np.zeros(units.count, dtype=np.bool_)
    used[units.whole] = True
    products = [layer for layer in reversed(units.layers) if layer.is_product]
    changes = True
    while changes:
        _spread(products, used)
        changes = False
        for layer in products:
            changes |= layer.padded and _represent(layer, used)
    present = used.copy()
    for value in units.values:
        if len(value.ids) and not present[value.ids].any():
            present[value.ids[0]] = True
    return Kept(used, present)


def _spread(products: list[CoupledLayer], used: Flags) -> None:
    changes = True
    while changes:
        changes = False
        for layer in products:
            needed = layer.reads.ids[_read(layer, used) & np.isnan(layer.reads.constants)]
            changes |= not used[needed].all()
            used[needed] = True


def _read(layer: CoupledLayer, used: Flags) -> Flags:
    """Which of its inputs the used outputs of a layer read."""
    rows = layer.nonzero[used[layer.gives.ids]]
    return np.asarray(rows.any(0), dtype=np.bool_)


def _represent(layer: CoupledLayer, used: Flags) -> bool:
    """See that one used unit can stand for the constants that a padded layer reads and loses. Whether one is new."""
    sizes = np.abs(np.nan_to_num(layer.reads.constants))
    there = used[layer.reads.ids]
    lost = np.where(_read(layer, used) & ~there, sizes, 0)
    if lost.max(initial=0) * NEAR <= np.where(there, sizes, 0).max(initial=0):
        return False
    used[layer.reads.ids[lost.argmax()]] = True
    return True


def representative(layer: CoupledLayer, used: Flags) -> int:
    """Which input of a padded layer stands for the constant inputs that are not used."""
    sizes = np.abs(np.nan_to_num(layer.reads.constants))
    return int(np.where(used[layer.reads.ids], sizes, 0).argmax())
