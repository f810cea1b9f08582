"""Scopes: which weights compete with each other, and how many of them one pruning leaves.

A scope forms groups of layers and says, of the weights that each has left, how many it keeps.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from tombola.pruning.mask import Mask
from tombola.utils.errors import InputError, unknown

Value = TypeVar("Value")

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


RATE = 0.2
"""What a pruning removes where nothing is said: 20% (Frankle & Carbin 2019, section 2)."""


def round_rate(rate: float | None, density: float | None, rounds: int) -> float:
    """The rate of each of so many prunings: `rate`, or that with which the fraction `density` is left after all.

    To keep density d after n prunings, each keeps d^(1/n) of what is left: this is what "p^(1/n)% per round" means
    (Frankle & Carbin 2019, section 1). Raises `InputError` where both are given, or one is not between 0 and 1.
    """
    for name, value in (("rate", rate), ("density", density)):
        if value is not None and not 0 < value < 1:
            raise InputError(f"{name}: should be between 0 and 1, not {value!r}")
    if density is None:
        return RATE if rate is None else rate
    if rate is not None:
        raise InputError("rate, density: give one of them: what each level removes, or what the last one leaves")
    return 1.0 - float(density ** (1 / rounds))


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


def check_rounds(mask: Mask, scope: Scope, rounds: int, units: Counts | None = None) -> None:
    """Refuse a schedule that is bound to leave a group of layers empty, or to go on when nothing is removed. Where
    not weights are pruned but larger units, `units` says how many there are.

    Raises `InputError` that says at which level, and how many levels would be right. In a group of several
    layers one of them may still run empty; which one is known only after training (see `Mask.empty_layers`).
    """
    sizes = left = dict(weights_left(mask, scope.groups) if units is None else units)
    for level in range(1, rounds + 1):
        keeps = scope.keeps(left)
        advice = f"; set levels to at most {level - 1}, or another rate"
        if keeps == left:
            raise InputError(f"at level {level} pruning would remove nothing{advice}")
        for group, kept in keeps.items():
            if kept == 0 and left[group]:
                what = f"layer {group[0]}" if len(group) == 1 else "the network"
                of = "weights" if units is None else "units"
                raise InputError(f"pruning leaves {what} ({sizes[group]:,} {of}) empty at level {level}{advice}")
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
    if rates and name != "layer":
        raise InputError(f'rates: have no meaning with scope "{name}"; leave layers out with leave_out')
    own = by_name(rates or {}, shapes, "rates")
    left_out = by_name(dict.fromkeys(leave_out), shapes, "leave_out")
    pruned = [layer for layer in shapes if layer not in left_out]
    if not pruned:
        raise InputError("leave_out: every layer is left out; at least one should be pruned")
    if name == "global":
        return Globally(tuple(pruned), rate)
    if name == "erk":
        return ErdosRenyi({layer: shapes[layer] for layer in pruned}, rate)
    return Layerwise({layer: own.get(layer, rate) for layer in pruned})


def by_name(values: Mapping[str, Value], layers: Iterable[str], where: str) -> dict[str, Value]:
    """By layer, its value in a table of names and patterns (`fc*`); the first that matches counts. Layers that none
    matches have none. Raises `InputError`, which says `where`, for a name or pattern that matches no layer."""
    names = {layer.removesuffix(".weight"): layer for layer in layers}
    found: dict[str, Value] = {}
    for pattern, value in values.items():
        matching = fnmatch.filter(names, pattern)
        if not matching:
            raise InputError(f"{where}: {unknown('layer', pattern, names)}")
        for name in matching:
            found.setdefault(names[name], value)
    return {layer: found[layer] for layer in names.values() if layer in found}
