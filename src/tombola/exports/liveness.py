"""Liveness: the units of a network that its outputs depend on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tombola.graph.constants import BoolArray, Constants, FloatArray, Weights
from tombola.graph.coupling import Coupling
from tombola.graph.ties import IntArray

MIN_RATIO = 0.1
"""A constant can replace another if it is at least this fraction of it; a smaller one would cost precision."""


@dataclass(frozen=True)
class UnitReader:
    """A product that reads units, and what constants it reads."""

    weights: Weights
    constants: FloatArray
    """Of each input; NaN if it is not constant, or not zero where that cannot be added to a bias."""
    layer: str | None
    """The name of its module, if constants can be added to the bias."""

    @property
    def inputs(self) -> IntArray:
        return self.weights.product.inputs

    @property
    def outputs(self) -> IntArray:
        return self.weights.product.outputs

    @property
    def spreads(self) -> bool:
        return self.weights.product.spreads

    def of_inputs(self, flags: BoolArray) -> BoolArray:
        """The flag of each input's unit; true for an input that has none."""
        return np.where(self.inputs < 0, True, flags[self.inputs.clip(min=0)])

    def needed(self, used: BoolArray) -> BoolArray:
        """Which inputs the used outputs depend on."""
        return np.asarray(self.weights.nonzero[used[self.outputs]].any(0), dtype=np.bool_)


def readers(coupling: Coupling, constants: Constants, network: nn.Module) -> list[UnitReader]:
    """The products of a network."""
    modules = dict(network.named_modules())
    products = [weights.product for weights in constants.weights]
    names = Counter(id(parameter) for _, parameter in network.named_parameters(remove_duplicate=False))
    found = []
    for weights in constants.weights:
        product = weights.product
        path = coupling.graph.operations[product.operation].module
        module = modules[path]
        once = sum(other.weight == product.weight for other in products) == 1
        own = [module._parameters.get("weight"), module._parameters.get("bias")]
        foldable = has_bias(module) and product.weight == f"{path}.weight".removeprefix(".") and once
        foldable = foldable and all(names[id(each)] == 1 for each in own if each is not None)
        values = constants.along(*product.reads)
        if not foldable or isinstance(module, _ConvTransposeNd) or (product.groups > 1 and product.spreads):
            values = np.where(values == 0, 0.0, np.nan)
            foldable = False
        found.append(UnitReader(weights, values, path if foldable else None))
    return found


def has_bias(module: nn.Module) -> bool:
    """Whether a layer adds its bias to a product, or could."""
    return isinstance(module, nn.Linear | _ConvNd) or type(module).__name__ == "Conv1D"


def live_units(
    coupling: Coupling, constants: Constants, all_readers: list[UnitReader], kept: Collection[int] = ()
) -> tuple[BoolArray, BoolArray]:
    """Which units the outputs of a network depend on; and which stay: these, and one of each axis without any.

    A unit is used if it cannot be removed, is one of those to be `kept`, or if a used unit reads it with a nonzero
    weight. A constant unit is not used: it is added to the biases of its readers. Only a padded convolution cannot
    have a constant in its bias; there, one constant unit replaces all others.
    """
    used = np.zeros(coupling.count, dtype=np.bool_)
    used[[*coupling.fixed, *kept]] = True
    for norm in coupling.norms:
        tensor = coupling.graph.operations[norm.operation].inputs[0]
        not_zero = constants.along(tensor, -1) != 0  # true for NaN
        used[norm.inputs[not_zero & (norm.inputs >= 0)]] = True
    last_first = [*reversed(all_readers)]
    changes = True
    while changes:
        _propagate(last_first, used)
        changes = False
        for reader in last_first:
            changes |= reader.spreads and _add_substitute(reader, used)
    present = used.copy()
    for units in _axes(coupling):
        if len(units) and not present[units].any():
            present[units[0]] = True
    return used, present


def _axes(coupling: Coupling) -> Iterable[IntArray]:
    """The units along each axis that has to have some."""
    for axes in coupling.parameters.values():
        yield from (units for units in axes if units is not None)
    for product in coupling.products:
        if (product.inputs >= 0).all():
            yield product.inputs
        yield product.outputs


def _propagate(all_readers: list[UnitReader], used: BoolArray) -> None:
    changes = True
    while changes:
        changes = False
        for reader in all_readers:
            needed = reader.inputs[reader.needed(used) & np.isnan(reader.constants) & (reader.inputs >= 0)]
            changes |= not used[needed].all()
            used[needed] = True


def _add_substitute(reader: UnitReader, used: BoolArray) -> bool:
    """Use one more unit if the constants that a padded layer loses need it. Returns whether one was added."""
    sizes = np.abs(np.nan_to_num(reader.constants))
    in_use = reader.of_inputs(used)
    lost = np.where(reader.needed(used) & ~in_use, sizes, 0)
    if lost.max(initial=0) * MIN_RATIO <= np.where(in_use, sizes, 0).max(initial=0):
        return False
    used[reader.inputs[lost.argmax()]] = True
    return True


def substitute_input(reader: UnitReader, used: BoolArray) -> int:
    """Which input of a padded layer replaces the constant inputs that are not used."""
    sizes = np.abs(np.nan_to_num(reader.constants))
    return int(np.where(reader.of_inputs(used), sizes, 0).argmax())
