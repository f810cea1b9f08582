"""Scopes: which weights compete with each other, and how many of them one pruning leaves.

A scope forms groups of layers and says, of the weights that each has left, how many it keeps.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tombola.errors import InputError, unknown
from tombola.mask import Mask

Group = tuple[str, ...]
"""Layers whose weights compete with each other."""

Counts = Mapping[Group, int]
"""How many weights each group has left, or keeps."""


class Scope(Protocol):
    """One pruning of a network's layers."""

    @property
    def groups(self) -> tuple[Group, ...]:
        """The layers that compete with each other."""
        ...

    def keeps(self, left: Counts) -> dict[Group, int]:
        """How many weights each group keeps of those `left`; never more."""
        ...


def weights_left(mask: Mask, groups: Sequence[Group]) -> dict[Group, int]:
    """How many weights of each group are left."""
    counts = mask.counts
    return {group: sum(counts[name] for name in group) for group in groups}


def removed(rate: float, left: int) -> int:
    """How many of `left` weights one pruning at `rate` removes: round(rate × left), halves to even."""
    return round(rate * left)


@dataclass(frozen=True)
class Layerwise:
    """Each layer loses its own fraction (Frankle & Carbin 2019, section 2: LeNet and Conv-2/4/6)."""

    rates: Mapping[str, float]
    """By layer: the fraction of the weights left that one pruning removes, from 0 to 1."""

    @property
    def groups(self) -> tuple[Group, ...]:
        """See `Scope`."""
        return tuple((layer,) for layer in self.rates)

    def keeps(self, left: Counts) -> dict[Group, int]:
        """See `Scope`."""
        return {group: n - removed(self.rates[group[0]], n) for group, n in left.items()}


@dataclass(frozen=True)
class Globally:
    """All layers are compared together (Frankle & Carbin 2019, section 4: Resnet-18 and VGG-19)."""

    layers: tuple[str, ...]
    rate: float

    @property
    def groups(self) -> tuple[Group, ...]:
        """See `Scope`."""
        return (self.layers,)

    def keeps(self, left: Counts) -> dict[Group, int]:
        """See `Scope`."""
        return {group: n - removed(self.rate, n) for group, n in left.items()}


@dataclass(frozen=True)
class ErdosRenyi:
    """Layers have the densities of a random graph: that of a layer is proportional to the sum of its dimensions over
    their product (Mocanu et al. 2018; with kernels, "ERK", Evci et al. 2020, section 3). So small layers stay denser.

    A layer that would be more than dense is dense, and so is one that has less to lose than its share; the others
    make up for it. The count over all layers is exact.
    """

    shapes: Mapping[str, tuple[int, ...]]
    rate: float
    """What one pruning removes of the weights that all layers together have left."""

    @property
    def groups(self) -> tuple[Group, ...]:
        """See `Scope`."""
        return tuple((layer,) for layer in self.shapes)

    def keeps(self, left: Counts) -> dict[Group, int]:
        """See `Scope`."""
        total = sum(left.values())
        return share_out(total - removed(self.rate, total), {g: sum(self.shapes[g[0]]) for g in left}, left)


def share_out(total: int, shares: Mapping[Group, float], most: Counts) -> dict[Group, int]:
    """Divide `total` in proportion to `shares`, no group getting more than its `most`; exact, largest remainders
    first, then in order.

    >>> share_out(10, {("a",): 1, ("b",): 2}, {("a",): 9, ("b",): 5})
    {('a',): 5, ('b',): 5}
    """
    given: dict[Group, int] = {}
    open_ = dict(shares)
    while open_:  # those that get all they have leave the rest to the others, who may then get all they have
        unit = (total - sum(given.values())) / sum(open_.values())
        full = [group for group, share in open_.items() if share * unit >= most[group]]
        if not full:
            break
        for group in full:
            given[group] = most[group]
            del open_[group]
    exact = {group: share * unit for group, share in open_.items()}
    given |= {group: math.floor(part) for group, part in exact.items()}
    missing = total - sum(given.values())
    for group in sorted(exact, key=lambda group: given[group] - exact[group])[:missing]:
        given[group] += 1
    return {group: given[group] for group in shares}


def check_rounds(mask: Mask, scope: Scope, rounds: int) -> None:
    """Refuse a schedule that is bound to leave a group of layers empty, or to go on when nothing is removed.

    Raises `InputError` that says at which level, and how many levels would be right. In a group of several
    layers one of them may still run empty; which one is known only after training (see `Mask.empty_layers`).
    """
    sizes = left = weights_left(mask, scope.groups)
    for level in range(1, rounds + 1):
        keeps = scope.keeps(left)
        advice = f"; set search.levels to at most {level - 1}, or another rate"
        if keeps == left:
            raise InputError(f"search: at level {level} pruning would remove nothing{advice}")
        for group, kept in keeps.items():
            if kept == 0 and left[group]:
                what = f"layer {group[0]}" if len(group) == 1 else "the network"
                raise InputError(
                    f"search: pruning leaves {what} ({sizes[group]:,} weights) empty at level {level}{advice}"
                )
        left = keeps


SCOPES = ("layer", "global", "erk")


def scope(
    name: str,
    shapes: Mapping[str, tuple[int, ...]],
    rate: float,
    rates: Mapping[str, float] | None = None,
    leave_out: Sequence[str] = (),
) -> Scope:
    """The scope of that name over the layers whose weights have these `shapes`.

    `rate` is the fraction of the weights left that one pruning removes; `rates` gives layers their own, by name or
    pattern (`fc*`), where the scope is `layer`; `leave_out` names those that are not pruned.
    Raises `InputError` for an unknown scope, a name or pattern that matches no layer, and rates that mean nothing.
    """
    if name not in SCOPES:
        raise unknown("scope", name, SCOPES)
    own = rates or {}
    if own and name != "layer":
        raise InputError(f'rates: have no meaning with scope "{name}"; leave layers out with leave_out')
    layers = {layer.removesuffix(".weight"): layer for layer in shapes}
    for where, patterns in (("rates", own), ("leave_out", leave_out)):
        for pattern in patterns:
            if not fnmatch.filter(layers, pattern):
                raise InputError(f"{where}: {unknown('layer', pattern, layers)}")
    pruned = {layer: full for layer, full in layers.items() if not _first(leave_out, layer)}
    if not pruned:
        raise InputError("leave_out: every layer is left out; at least one should be pruned")
    if name == "global":
        return Globally(tuple(pruned.values()), rate)
    if name == "erk":
        return ErdosRenyi({full: shapes[full] for full in pruned.values()}, rate)
    return Layerwise({full: own.get(_first(own, layer) or "", rate) for layer, full in pruned.items()})


def _first(patterns: Iterable[str], layer: str) -> str | None:
    return next((pattern for pattern in patterns if fnmatch.fnmatch(layer, pattern)), None)
