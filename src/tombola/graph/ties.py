"""Ties: which units must be kept or removed together, collected while the operations of a network are followed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IntArray = NDArray[np.int64]

NONE = -1
"""The unit of an element that has none, such as a pixel of the input."""


class Ties:
    """Units, and which of them are tied. Tensors of units are float64: all operators that move elements take it."""

    def __init__(self) -> None:
        self.count = 0
        """Units are smaller than this."""
        self._pairs: list[IntArray] = []
        self._classes: IntArray | None = None
        self.reasons: list[tuple[IntArray, str]] = []
        """Units that cannot be removed, and why; in the order in which that was found."""

    def new(self, count: int) -> Tensor:
        """New units."""
        first = self.count
        self.count += count
        return torch.arange(first, self.count, dtype=torch.float64)

    def tie(self, some: Tensor, others: Tensor) -> None:
        """Tie the units at the same places of two tensors that can be broadcast, where both have one."""
        pairs = torch.stack([each.flatten() for each in without_repeats(some, others)])
        different = pairs[:, (pairs >= 0).all(0) & (pairs[0] != pairs[1])]
        if different.numel():
            self._pairs.append(np.unique(different.long().numpy(), axis=1))
            self._classes = None

    def merge(self, units: Tensor, axes: Sequence[int]) -> Tensor:
        """Tie all units along these axes to each other. Returns one of them for each, with axes of size 1."""
        if not axes or not units.numel():
            return units
        (compact,) = without_repeats(units)
        first = compact.amax(tuple(axes), keepdim=True)
        self.tie(compact, first)
        return first.expand([1 if axis in axes else size for axis, size in enumerate(units.shape)])

    def fix(self, units: Tensor, reason: str) -> None:
        """These units cannot be removed."""
        found = distinct(units)
        if len(found):
            self.reasons.append((found, reason))

    @property
    def fixed(self) -> dict[int, str]:
        """Classes that cannot be removed, and the first reason why."""
        found: dict[int, str] = {}
        for units, reason in self.reasons:
            for one in np.unique(self.classes[units]):
                found.setdefault(int(one), reason)
        return found

    @property
    def classes(self) -> IntArray:
        """By unit: the smallest unit that it is tied to, directly or by way of others."""
        if self._classes is None or len(self._classes) < self.count:
            from scipy.sparse import coo_array  # takes a while to import
            from scipy.sparse.csgraph import connected_components

            pairs = np.concatenate(self._pairs, axis=1) if self._pairs else np.zeros((2, 0), np.int64)
            graph = coo_array(
                (np.ones(pairs.shape[1], np.int8), (pairs[0], pairs[1])), shape=(self.count, self.count)
            )
            _, groups = connected_components(graph, directed=False)
            _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
            self._classes = first[inverse].astype(np.int64)
        return self._classes

    def classes_of(self, units: Tensor) -> Tensor:
        """The class of each unit of a tensor; `NONE` stays."""
        if not self.count:
            return units
        (compact,) = without_repeats(units)
        found = torch.from_numpy(self.classes)[compact.clamp(min=0).long()].double()
        return torch.where(compact < 0, compact, found).expand(units.shape)


def distinct(units: Tensor) -> IntArray:
    """The units in a tensor, each once."""
    (compact,) = without_repeats(units)
    return np.unique(compact[compact >= 0].long().numpy())


def none(shape: Sequence[int]) -> Tensor:
    """No units."""
    return torch.tensor(float(NONE), dtype=torch.float64).expand(tuple(shape))


def along(units: Tensor, axis: int, shape: Sequence[int]) -> Tensor:
    """A vector of units as those of a tensor of this shape, along one axis."""
    return units.reshape([-1 if i == axis % len(shape) else 1 for i in range(len(shape))]).expand(tuple(shape))


def varies(units: Tensor, axis: int) -> bool:
    """Whether units differ along an axis; elements without a unit do not count."""
    (compact,) = without_repeats(units)
    if compact.shape[axis] < 2:
        return False
    least = torch.where(compact < 0, torch.inf, compact).amin(axis)
    return bool((compact.amax(axis) > least).any())


def vector(units: Tensor, axis: int) -> Tensor:
    """The units along one axis, of which there is one at each place."""
    (compact,) = without_repeats(units)
    axes = others(units, axis)
    return (compact.amax(axes) if axes else compact).expand(units.shape[axis])


def others(units: Tensor, *axes: int) -> list[int]:
    """All axes but these."""
    left_out = {axis % units.dim() for axis in axes}
    return [axis for axis in range(units.dim()) if axis not in left_out]


def without_repeats(*tensors: Tensor) -> list[Tensor]:
    """The tensors, broadcast to each other; of axes that all of them are expanded along, only the first entry."""
    expanded = list(torch.broadcast_tensors(*tensors))  # type: ignore[no-untyped-call]
    for axis in range(expanded[0].dim()):
        if expanded[0].shape[axis] > 1 and all(tensor.stride(axis) == 0 for tensor in expanded):
            expanded = [tensor.narrow(axis, 0, 1) for tensor in expanded]
    return expanded
