"""Exchangeable units: hidden units of a network whose order does not matter, and permutations of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tombola.graph.coupling import Coupling
from tombola.graph.ties import IntArray
from tombola.pruning.hold import release
from tombola.pruning.mask import Mask
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.utils.errors import InputError
from tombola.utils.model_inputs import call, rows, tensors
from tombola.utils.network_copy import copy_network


@dataclass(frozen=True)
class UnitEntries:
    """The entries of one parameter or buffer that belong to the units of a group."""

    name: str
    axis: int
    indices: Tensor
    """Along the axis: int64 of shape (units, entries of each unit). After a flattening, a unit has several."""


@dataclass(frozen=True)
class UnitGroup:
    """Units that can change places with each other, such as the channels of a residual stream."""

    size: int
    entries: tuple[UnitEntries, ...]
    """All that moves with the units."""


@dataclass(frozen=True)
class ExchangeableUnits:
    """The groups of units of a network that can be permuted without changing its function."""

    groups: tuple[UnitGroup, ...]
    parameters: frozenset[str]
    """The names of those tensors that are parameters; the others are buffers."""

    @classmethod
    def of(cls, network: PrunableNetwork) -> ExchangeableUnits:
        """Found from the coupling of the network. Raises `InputError` if there are none, or if a permutation of them
        changes the outputs on the network's example, so that the coupling is not the whole truth."""
        parameters = frozenset(name for name, _ in network.network.named_parameters())
        found = cls(_groups(network.coupling), parameters)
        if not found.groups:
            raise InputError("controls.permuted: the network has no hidden units that can be permuted")
        if not _keeps_function(network, found.random_permutation(0)):
            raise InputError(
                "controls.permuted: the network's outputs depend on the order of its hidden units: not every "
                "operation in its forward pass is understood"
            )
        return found

    def random_permutation(self, seed: int) -> UnitPermutation:
        """A random permutation of each group."""
        generator = np.random.default_rng(seed)
        return UnitPermutation(self, [torch.from_numpy(generator.permutation(group.size)) for group in self.groups])


@dataclass(frozen=True)
class UnitPermutation:
    """A correspondence between the units of two networks of the same architecture."""

    units: ExchangeableUnits
    orders: Sequence[Tensor]
    """For each group, int64 of shape (units,): unit i of the first network corresponds to unit `order[i]` of the
    second."""

    @property
    def inverse(self) -> UnitPermutation:
        """The correspondence seen from the second network."""
        return UnitPermutation(self.units, [order.argsort() for order in self.orders])

    def align(self, second: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of the second network, by the names in its `state_dict`, with its units in the order of the first.
        The network that they make computes the same function."""
        aligned = dict(second)
        for group, order in zip(self.units.groups, self.orders, strict=True):
            for each in group.entries:
                if each.name in aligned:
                    aligned[each.name] = reorder(aligned[each.name], each, order)
        return aligned

    def carry_over(self, mask: Mask) -> Mask:
        """The mask of the first network for the corresponding weights of the second, with the same counts."""
        return Mask(self.inverse.align(mask))


def reorder(tensor: Tensor, entries: UnitEntries, order: Tensor) -> Tensor:
    """The tensor with the entries of unit `order[i]` at the place of unit i."""
    index = torch.arange(tensor.shape[entries.axis])
    index[entries.indices.flatten()] = entries.indices[order].flatten()
    return tensor.index_select(entries.axis, index.to(tensor.device))


def _groups(coupling: Coupling) -> tuple[UnitGroup, ...]:
    """Units that have equally many entries in the same tensors. Units that cannot be removed stay where they are."""
    entries: dict[int, dict[tuple[str, int], IntArray]] = {}
    for name, axes in coupling.parameters.items():
        for axis, ids in enumerate(axes):
            if ids is None:
                continue
            order = np.argsort(ids, kind="stable")
            units, first = np.unique(ids[order], return_index=True)
            for unit, indices in zip(units.tolist(), np.split(order, first[1:]), strict=True):
                if unit >= 0 and unit not in coupling.fixed:
                    entries.setdefault(unit, {})[name, axis] = indices
    alike: dict[Any, list[int]] = {}
    for unit in sorted(entries):
        alike.setdefault(tuple((place, len(found)) for place, found in entries[unit].items()), []).append(unit)
    return tuple(
        UnitGroup(
            len(units),
            tuple(
                UnitEntries(name, axis, torch.from_numpy(np.stack([entries[unit][name, axis] for unit in units])))
                for (name, axis), _ in signature
            ),
        )
        for signature, units in alike.items()
        if len(units) > 1
    )


@torch.no_grad()
def _keeps_function(network: PrunableNetwork, permutation: UnitPermutation) -> bool:
    """Whether a copy of the network with other values, which are permuted, has the same outputs as before."""
    copied, example = copy_network(network.network).eval(), rows(network.example, slice(2))
    release(copied)
    values = dict((*copied.named_parameters(), *copied.named_buffers()))
    generator = torch.Generator().manual_seed(0)
    for tensor in values.values():  # otherwise biases, scales and statistics would be equal for all units
        if tensor.is_floating_point():
            tensor.add_((0.1 * torch.rand(tensor.shape, generator=generator)).to(tensor))
    before = [*tensors(call(copied, example))]
    for name, permuted in permutation.align(values).items():
        values[name].copy_(permuted)
    after = [*tensors(call(copied, example))]
    return all(
        torch.allclose(a, b, rtol=0, atol=1e-4 * float(a.abs().max())) for a, b in zip(before, after, strict=True)
    )
