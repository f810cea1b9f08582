"""Structures: what lives and dies together. Weights by themselves, whole neurons, channels, heads, tiles, or n of m.

To add one, write a function from a network to `Units` in a file here and name it in `STRUCTURES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from tombola.errors import InputError, unknown
from tombola.structures.heads import Heads, heads
from tombola.structures.pattern import Pattern
from tombola.structures.rows import blocks, channels, neurons
from tombola.structures.structure import WEIGHTS, Structure
from tombola.structures.units import Units

STRUCTURES: dict[str, Callable[[nn.Module], Structure]] = {
    "weights": lambda network: WEIGHTS,  # noqa: ARG005
    "neurons": neurons,
    "channels": channels,
    "heads": heads,
}
"""By name. Beside these there are `n:m`, such as "2:4", and `blocks:HEIGHTxWIDTH`."""

__all__ = ["STRUCTURES", "WEIGHTS", "Heads", "Pattern", "Structure", "Units", "named", "pattern_of"]


def named(name: str) -> Callable[[nn.Module], Structure]:
    """What makes the structure of that name for a network. Raises `InputError` for an unknown name."""
    if name in STRUCTURES:
        return STRUCTURES[name]
    if pattern_of(name):
        n, m = pattern_of(name) or (1, 1)
        return lambda network: Pattern(n, m, network)
    if tile := re.fullmatch(r"blocks:([1-9]\d*)x([1-9]\d*)", name):
        height, width = map(int, tile.groups())
        return lambda network: blocks(network, height, width)
    raise unknown("structure", name, [*STRUCTURES, "2:4", "blocks:4x4"])


def pattern_of(name: str) -> tuple[int, int] | None:
    """(n, m) of a structure `n:m`, or None of any other. Raises `InputError` where n is not from 1 to m - 1."""
    found = re.fullmatch(r"(\d+):(\d+)", name)
    if not found:
        return None
    n, m = map(int, found.groups())
    if not 0 < n < m:
        raise InputError(f'structure "{name}": of every m weights at least one should stay and one go')
    return n, m
