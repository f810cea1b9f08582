"""Coupled units: channels, neurons, heads and entries of the width, of all layers that they tie together."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from tombola.graph.coupling import Kind, UnitSet
from tombola.pruning.layers import display_name, layer_rows
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.pruning.structures.layer_units import row_units
from tombola.pruning.structures.unit_structure import UnitStructure
from tombola.pruning.structures.units import NO_UNIT, CompetingUnits, WeightUnits
from tombola.utils.errors import InputError

_log = logging.getLogger(__name__)

LEFT_OUT, OUTPUT = "left out", "an output"
"""Why sets stay whole of which this is to be expected."""


def channel_units(network: PrunableNetwork) -> UnitStructure:
    """A unit is a channel of convolutions, with all that it is tied to (Fang et al. 2023, section 3): its filters,
    and the weights of all layers that read it."""
    return _structure(network, "channels", *_units(network, "channels"))


def neuron_units(network: PrunableNetwork) -> UnitStructure:
    """A unit is a hidden unit of linear layers: its rows, and the columns of all layers that read it. Of an LSTM, GRU
    or RNN it is the rows of all gates; of a bilinear layer, a row."""
    coupled, whole = _units(network, "neurons")
    rows = row_units(network, coupled)
    ids = dict(coupled.ids)
    for name, tensors in rows.ids.items():
        ids[name] = (*ids.get(name, ()), *tensors)
    return _structure(network, "neurons", WeightUnits(ids, (*coupled.sets, *rows.sets)), whole)


def head_units(network: PrunableNetwork) -> UnitStructure:
    """A unit is an attention head: its rows of the query, key and value projections, and its columns of the output
    projection (Michel et al. 2019, section 2)."""
    return _structure(network, "heads", *_units(network, "heads"))


def width_units(network: PrunableNetwork) -> UnitStructure:
    """A unit is an entry of the embedding: of all that is added up in a residual stream and normalised together, its
    rows, columns, biases and scales."""
    return _structure(network, "width", *_units(network, "width"))


def _structure(
    network: PrunableNetwork, kind: Kind, units: WeightUnits, whole: Mapping[str, list[str]]
) -> UnitStructure:
    """Raises `InputError` if there are none, and otherwise logs which sets stay whole, by why."""
    names = {layer for each in units.sets for layer in each.layers}
    whole = {reason: [name for name in found if name not in names] for reason, found in whole.items()}
    if not units.sets:
        other = "; tombola.pruning.structures.Heads describes others" if kind == "heads" else ""
        raise InputError(f"structure: no {kind} can be pruned{_listed(whole)}{other}")
    if listed := _listed({reason: found for reason, found in whole.items() if reason not in (LEFT_OUT, OUTPUT)}):
        _log.warning("%s that stay whole%s", kind, listed)
    return UnitStructure(units, kind, weight_costs=network.multiply_adds)


def width_parameters(network: PrunableNetwork) -> list[str]:
    """The parameters with entries of the width, whatever layers they are of."""
    found = {unit for each in _of_kind(network, "width") if not each.whole for unit in each.units}
    parameters = dict(network.network.named_parameters())
    return [
        name
        for name, axes in network.coupling.parameters.items()
        if name in parameters  # buffers are not pruned
        and any(ids is not None and not found.isdisjoint(ids.tolist()) for ids in axes)
    ]


def _units(network: PrunableNetwork, kind: Kind) -> tuple[WeightUnits, dict[str, list[str]]]:
    """The units of a kind that can be pruned; and the first parameters of sets that stay whole, by why."""
    found, whole = list[UnitSet](), dict[str, list[str]]()
    for each in _of_kind(network, kind):
        if reason := _why_whole(network, each):
            whole.setdefault(reason, []).append(each.name)
        else:
            found.append(each)
    ids = _ids(network, torch.tensor([unit for each in found for unit in each.units], dtype=torch.int64))
    sets: dict[str, CompetingUnits] = {}
    for each in found:
        layers = _layers(network, each.producers)
        name = next((n for n in (*layers, each.name) if n not in sets), f"{each.name} #{len(sets)}")
        sets[name] = CompetingUnits(name, torch.tensor(sorted(each.units)), layers)
    return WeightUnits(ids, tuple(sets.values())), whole


def _of_kind(network: PrunableNetwork, kind: Kind) -> list[UnitSet]:
    return [each for each in network.coupling.sets if each.kind == kind]


def _why_whole(network: PrunableNetwork, units: UnitSet) -> str:
    """Why none of the units of a set is pruned; empty if they can be."""
    layers = _layers(network, units.producers)
    if units.whole:
        return OUTPUT if not network.coupling.output_layers.isdisjoint(units.producers) else units.whole
    if len(units.units) == 1:
        return "all outputs are one unit"
    if not network.left_out.isdisjoint(layers):
        return LEFT_OUT
    if network.output_names is not None and not network.outputs.isdisjoint(layers):
        return OUTPUT
    whole = {*units.producers} - {*network.dense}
    matrices = dict(network.network.named_parameters())
    if fixed := [name for name in units.producers if name in whole and name in matrices and matrices[name].dim() > 1]:
        return f"{display_name(fixed[0])} is not pruned"
    if units.kind == "width" and (buffer := _buffer_of(network, {*units.units})):
        return f"the buffer {buffer} is not pruned"
    return "" if layers else "no layer that is pruned produces them"


def _buffer_of(network: PrunableNetwork, units: set[int]) -> str:
    """A buffer with entries of these units, such as fixed position embeddings; empty if there is none. Statistics of
    batch norm do not count: what it computes of zeros is zero if its weight and bias are."""
    buffers = dict(network.network.named_buffers())
    for name, axes in network.coupling.parameters.items():
        owner = network.network.get_submodule(name.rpartition(".")[0])
        touched = any(ids is not None and not units.isdisjoint(ids.tolist()) for ids in axes)
        if touched and name in buffers and not isinstance(owner, _NormBase):
            return name
    return ""


def _layers(network: PrunableNetwork, parameters: Iterable[str]) -> tuple[str, ...]:
    """The layers to prune that are parts of these parameters, in this order."""
    return tuple(
        layer
        for name in parameters
        if name in network.dense
        for layer in layer_rows(name, tuple(network.dense[name].shape))
    )


def _ids(network: PrunableNetwork, units: Tensor) -> dict[str, tuple[Tensor, ...]]:
    """By layer: the ids of these units along its axes."""
    found = {}
    for name, kept in network.dense.items():
        axes = network.coupling.parameters.get(name, ())
        for layer, rows in layer_rows(name, tuple(kept.shape)).items():
            parts = [
                torch.from_numpy(ids)[rows if axis == 0 else slice(None)].view(
                    [-1 if axis == other else 1 for other in range(kept.dim())]
                )
                for axis, ids in enumerate(axes)
                if ids is not None
            ]
            known = [ids.masked_fill(~torch.isin(ids, units), NO_UNIT) for ids in parts]
            if tensors := tuple(ids for ids in known if (ids != NO_UNIT).any()):
                found[layer] = tensors
    return found


def _listed(whole: Mapping[str, list[str]]) -> str:
    """The names of sets, by why they stay whole, in one line."""
    parts = []
    for reason, names in whole.items():
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            parts.append(f"{', '.join(map(display_name, names[:5]))}{more} ({reason})")
    return f": {'; '.join(parts)}" if parts else ""
