"""Structures: which weights are pruned together: single weights, channels, neurons, heads, the width, tiles, n of m.

To add one, write a function from a `PrunableNetwork` to `UnitStructure` in a file here and name it in `STRUCTURES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tombola.pruning.prunable_network import PrunableNetwork
from tombola.pruning.structures.coupled import channel_units, head_units, neuron_units, width_parameters, width_units
from tombola.pruning.structures.heads import Heads
from tombola.pruning.structures.layer_units import blocks
from tombola.pruning.structures.pattern import NMPattern
from tombola.pruning.structures.rows import Rows, row_shape
from tombola.pruning.structures.structure import UNSTRUCTURED, Structure
from tombola.pruning.structures.unit_structure import UnitStructure
from tombola.utils.errors import InputError, unknown

STRUCTURES: dict[str, Callable[[PrunableNetwork], Structure]] = {
    "weights": lambda network: UNSTRUCTURED,  # noqa: ARG005
    "neurons": neuron_units,
    "channels": channel_units,
    "heads": head_units,
    "width": width_units,
}
"""By name. `n:m`, such as "2:4", and `blocks:HEIGHTxWIDTH` are valid names too."""

__all__ = [
    "STRUCTURES",
    "UNSTRUCTURED",
    "Heads",
    "NMPattern",
    "Rows",
    "Structure",
    "UnitStructure",
    "parse_structure",
    "row_shape",
    "width_parameters",
]


def parse_structure(name: str) -> Callable[[PrunableNetwork], Structure]:
    """The function that makes the structure of that name for a network. Raises `InputError` for an unknown name."""
    if name in STRUCTURES:
        return STRUCTURES[name]
    if pattern := parse_pattern(name):
        return lambda network: NMPattern(*pattern, network.layers)
    if tile := re.fullmatch(r"blocks:([1-9]\d*)x([1-9]\d*)", name):
        height, width = map(int, tile.groups())
        return lambda network: blocks(network, height, width)
    raise unknown("structure", name, [*STRUCTURES, "2:4", "blocks:4x4"])


def parse_pattern(name: str) -> tuple[int, int] | None:
    """(n, m) of a structure `n:m`, or None for any other. Raises `InputError` if n is not from 1 to m - 1."""
    found = re.fullmatch(r"(\d+):(\d+)", name)
    if not found:
        return None
    n, m = map(int, found.groups())
    if not 0 < n < m:
        raise InputError(f'structure: "{name}" should keep at least 1 and at most {m - 1} of every {m} weights')
    return n, m
