"""Scopes: which weights compete with each other, and how many of them one pruning step keeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from tombola.pruning.layers import Layer, matching, names_of
from tombola.pruning.mask import Mask
from tombola.utils.errors import InputError, unknown
from tombola.utils.text import plural

Value = TypeVar("Value")

Group = tuple[str, ...]
"""Layers whose weights compete with each other."""

Counts = Mapping[Group, int]
"""The number of weights of each group, left or to be kept."""


class Scope(Protocol):
    """Divides the layers into groups, and sets the number of weights that each group keeps."""

    @property
    def groups(self) -> tuple[Group, ...]: ...

    def keeps(self, left: Counts) -> dict[Group, int]:
        """The number of weights that each group keeps after one step; at most the number it has `left`."""
        ...


def weights_left(mask: Mask, groups: Sequence[Group]) -> dict[Group, int]:
    """The number of kept weights of each group."""
    counts = mask.counts
    return {group: sum(counts[name] for name in group) for group in groups}


def removed_count(rate: float, left: int) -> int:
    """How many of `left` weights one pruning step removes: round(rate × left), halves to even."""
    return round(rate * left)


@dataclass(frozen=True)
class Layerwise:
    """Each layer is pruned at its own rate (Frankle & Carbin 2019, section 2: LeNet and Conv-2/4/6)."""

    rates: Mapping[str, float]
    """By layer: the fraction of the weights left that one step removes, from 0 to 1."""

    @property
    def groups(self) -> tuple[Group, ...]:
        return tuple((layer,) for layer in self.rates)

    def keeps(self, left: Counts) -> dict[Group, int]:
        return {group: n - removed_count(self.rate_of(group), n) for group, n in left.items()}

    def rate_of(self, group: Group) -> float:
        return self.rates[group[0]]


@dataclass(frozen=True)
class Rowwise(Layerwise):
    """Each output row of a layer is pruned at the layer's rate (Wanda, Sun et al. 2024, section 3: the comparison
    group). The count is rounded for each row. Where rows have different numbers of weights left, as after a hold, the
    layer keeps as many as if these differed by at most one; see `tombola.pruning.structures.rows`."""

    rows: Mapping[str, int]
    """By layer: the number of its output rows."""

    def keeps(self, left: Counts) -> dict[Group, int]:
        found = {}
        for group, n in left.items():
            rows, rate = self.rows[group[0]], self.rate_of(group)
            few, longer = divmod(n, rows)  # `longer` rows have one weight more
            found[group] = (rows - longer) * (few - removed_count(rate, few)) + longer * (
                few + 1 - removed_count(rate, few + 1)
            )
        return found


@dataclass(frozen=True)
class Globally:
    """The weights of all layers compete together (Frankle & Carbin 2019, section 4: Resnet-18 and VGG-19)."""

    layers: tuple[str, ...]
    rate: float

    @property
    def groups(self) -> tuple[Group, ...]:
        return (self.layers,)

    def keeps(self, left: Counts) -> dict[Group, int]:
        return {group: n - removed_count(self.rate, n) for group, n in left.items()}

    def rate_of(self, group: Group) -> float:  # noqa: ARG002
        return self.rate


@dataclass(frozen=True)
class ErdosRenyi:
    """Each layer's density is proportional to the sum of its dimensions divided by their product, as in a random
    graph (Mocanu et al. 2018; with kernels, "ERK", Evci et al. 2020, section 3). Small layers stay denser.

    A layer never gets more weights than it has left; the other layers share the rest. The total is exact.
    """

    shapes: Mapping[str, tuple[int, ...]]
    rate: float
    """The fraction of the weights left, over all layers together, that one step removes."""

    @property
    def groups(self) -> tuple[Group, ...]:
        return tuple((layer,) for layer in self.shapes)

    def keeps(self, left: Counts) -> dict[Group, int]:
        total = sum(left.values())
        return allocate(total - removed_count(self.rate, total), {g: sum(self.shapes[g[0]]) for g in left}, left)


@dataclass(frozen=True)
class AtLeast:
    """A scope that leaves each group at least so much."""

    scope: Scope
    least: Counts

    @property
    def groups(self) -> tuple[Group, ...]:
        return self.scope.groups

    def keeps(self, left: Counts) -> dict[Group, int]:
        return {group: min(left[group], max(n, self.least[group])) for group, n in self.scope.keeps(left).items()}


@dataclass(frozen=True)
class Stepwise:
    """A scope of units that cannot go one by one, so that a level may remove more than its rate. What each of the
    `levels` leaves is derived from what there was at first: otherwise the excess of one would add to the next."""

    scope: Layerwise | Globally
    levels: int
    dense: Counts
    """What each group has before the first level."""
    least: Counts
    multiples: Counts
    """What these groups keep, if not all they have, is a multiple of this."""

    @property
    def groups(self) -> tuple[Group, ...]:
        return self.scope.groups

    def keeps(self, left: Counts) -> dict[Group, int]:
        """The goal of the first level that is below what is `left`; after the last, its rate of what is left."""
        for level in range(1, self.levels + 1):
            goal = self.goal(level)
            if any(goal[group] < n for group, n in left.items()):
                return {group: min(n, goal[group]) for group, n in left.items()}
        return self._bounded(self.scope.keeps(left), left)

    def goal(self, level: int) -> dict[Group, int]:
        """What each group keeps after this many levels, or just below."""
        if level == 1:
            return self._bounded(self.scope.keeps(self.dense), self.dense)
        gone = {group: 1 - (1 - self.scope.rate_of(group)) ** level for group in self.dense}
        return self._bounded(
            {group: n - removed_count(gone[group], n) for group, n in self.dense.items()}, self.dense
        )

    def _bounded(self, counts: Counts, left: Counts) -> dict[Group, int]:
        found = {}
        for group, count in counts.items():
            down = count - count % self.multiples.get(group, 1) if count < left[group] else count
            found[group] = min(left[group], max(down, self.least[group]))
        return found


def goals(scope: Scope, dense: Counts, levels: int) -> list[Counts]:
    """What each group keeps after each of the levels. A level of `Stepwise` may leave less than its goal."""
    found = [dense]
    for level in range(1, levels + 1):
        found.append(scope.goal(level) if isinstance(scope, Stepwise) else scope.keeps(found[-1]))
    return found[1:]


def allocate(total: int, shares: Mapping[Group, float], limits: Counts) -> dict[Group, int]:
    """Divide `total` in proportion to `shares`, with no group above its limit. The sum is exact: what rounding down
    leaves goes to the largest remainders, in order among equals.

    >>> allocate(10, {("a",): 1, ("b",): 2}, {("a",): 9, ("b",): 5})
    {('a',): 5, ('b',): 5}
    """
    counts: dict[Group, int] = {}
    unfilled = dict(shares)
    while unfilled:  # what groups at their limit cannot take raises the shares of the others, perhaps to their limit
        unit = (total - sum(counts.values())) / sum(unfilled.values())
        full = [group for group, share in unfilled.items() if share * unit >= limits[group]]
        if not full:
            break
        for group in full:
            counts[group] = limits[group]
            del unfilled[group]
    exact = {group: share * unit for group, share in unfilled.items()}
    counts |= {group: math.floor(part) for group, part in exact.items()}
    missing = total - sum(counts.values())
    for group in sorted(exact, key=lambda group: counts[group] - exact[group])[:missing]:
        counts[group] += 1
    return {group: counts[group] for group in shares}


def check_levels(scope: Scope, left: Counts, levels: int, unit: str = "weight", or_else: str = "") -> None:
    """Refuse a number of `levels` that would empty a group of layers, or remove nothing at some level.

    `left` counts what each group has at the start, which `unit` names. Raises `InputError` with the level and the
    highest valid number of levels, and what may be changed `or_else`. One layer of a group may still become empty
    (see `Mask.empty_layers`).
    """
    dense = left
    for level, keeps in enumerate(goals(scope, dense, levels), 1):
        if keeps == left:
            raise removes_nothing(level, or_else)
        for group, kept in keeps.items():
            if kept == 0 and left[group]:
                what = f"layer {group[0]}" if len(group) == 1 else "the network"
                size = plural(dense[group], unit)
                raise InputError(f"pruning leaves {what} ({size}) empty at level {level}; {_advice(level, or_else)}")
        left = keeps


def removes_nothing(level: int, or_else: str = "") -> InputError:
    """The error of a level that would leave all that it finds."""
    return InputError(f"at level {level} pruning would remove nothing; {_advice(level, or_else)}")


def _advice(level: int, or_else: str) -> str:
    fewer = [f"levels to at most {level - 1}"] if level > 1 else []
    return "set " + ", or ".join([*fewer, "another rate", *([or_else] if or_else else [])])


Shapes = Mapping[str, tuple[int, ...]]
"""The shapes of the weights of all layers to prune, in the network's order; in the scope `row` outputs come first."""

SCOPES: dict[str, Callable[[Shapes, float], Scope]] = {
    "layer": lambda shapes, rate: Layerwise(dict.fromkeys(shapes, rate)),
    "row": lambda shapes, rate: Rowwise(dict.fromkeys(shapes, rate), {name: s[0] for name, s in shapes.items()}),
    "global": lambda shapes, rate: Globally(tuple(shapes), rate),
    "erk": ErdosRenyi,
}
"""By name; each is called with the shapes and the fraction of the weights left that one step removes."""


def match_layers(
    values: Mapping[str, Value], layers: Iterable[Layer], where: str, others: Iterable[str] = ()
) -> dict[str, Value]:
    """The value of each layer that a name or pattern (`fc*`) of the table matches; the first match counts. The name
    of a module matches all layers in it. Raises `InputError`, which names the option `where`, for a name or pattern
    that matches neither a layer nor one of the `others`, parameters that are no layers.
    """
    names = {layer.name: layer.names for layer in layers}
    known = {other: names_of(other) for other in others} | names
    found: dict[str, Value] = {}
    for pattern, value in values.items():
        matched = matching(pattern, known)
        if not matched:
            raise InputError(f"{where}: {unknown('layer', pattern, (label for label, *_ in known.values()))}")
        for name in matched:
            found.setdefault(name, value)
    return {layer: found[layer] for layer in names if layer in found}
