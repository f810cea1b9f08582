"""Units within one layer: tiles, and rows that the graph does not couple."""

from __future__ import annotations

import torch
from torch import Tensor

from tombola.pruning.layers import Kind, Layer, outputs_first
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.pruning.structures.unit_structure import UnitStructure
from tombola.pruning.structures.units import CompetingUnits, WeightUnits

_WITH_ROWS: tuple[Kind, ...] = ("recurrent", "bilinear")
"""Kinds of layers whose rows are units where nothing is known of what reads them."""


def blocks(network: PrunableNetwork, height: int, width: int) -> UnitStructure:
    """A unit is a tile of `height` outputs by `width` inputs of the weight as a matrix [out, in × kernel], also in
    transposed convolutions; of stacked experts, a tile of one expert's matrix as it is stored. Tiles at the edges are
    smaller (Gray et al. 2017; Narang et al. 2017)."""
    ids: dict[str, tuple[Tensor, ...]] = {}
    sets = []
    first = 0
    for name, layer in network.layers.items():
        shape = outputs_first(torch.empty(layer.shape, device="meta"), layer).shape
        experts, rows = shape[:2] if layer.kind == "stacked matrices" else (1, shape[0])
        columns = torch.Size(shape).numel() // (experts * rows)
        down, across = -(-rows // height), -(-columns // width)
        expert, row, column = torch.arange(experts), torch.arange(rows), torch.arange(columns)
        tiles = (expert[:, None, None] * down + row[:, None] // height) * across + column // width
        ids[name] = (first + outputs_first(tiles.view(shape), layer),)
        count = experts * down * across
        if name not in network.left_out:
            sets.append(CompetingUnits(name, torch.arange(first, first + count), (name,)))
        first += count
    return UnitStructure(WeightUnits(ids, tuple(sets)), "blocks", round_to=0, normalised=False)


def row_units(network: PrunableNetwork, coupled: WeightUnits) -> WeightUnits:
    """The rows of recurrent and bilinear layers that are neither output layers nor left out, as far as they are not
    among the `coupled` units. A hidden unit of an LSTM, GRU or RNN has the rows of all gates, in the weights of the
    input and of the hidden state. A mask covers weights alone: a pruned unit still has its bias."""
    ids: dict[str, tuple[Tensor, ...]] = {}
    members: dict[object, tuple[Tensor, list[str]]] = {}
    count = coupled.count
    for name, layer in network.layers.items():
        if layer.kind not in _WITH_ROWS or any(len(each) == layer.shape[0] for each in coupled.ids.get(name, ())):
            continue
        if name in network.outputs:
            continue
        units, key = _units(layer)
        own, layers = members.setdefault(key, (torch.arange(count, count + units), []))
        count = max(count, int(own[-1]) + 1)
        layers.append(name)
        ids[name] = (own.repeat(layer.shape[0] // units).view(-1, *[1] * (len(layer.shape) - 1)),)
    sets = [CompetingUnits(layers[0], own, tuple(layers)) for own, layers in members.values()]
    return WeightUnits(ids, tuple(each for each in sets if network.left_out.isdisjoint(each.layers)))


def _units(layer: Layer) -> tuple[int, object]:
    """How many units the rows of a layer belong to, and a key that layers with the same units share."""
    if layer.kind == "recurrent" and "_hr" not in layer.attribute:  # weight_hr projects the hidden state
        assert isinstance(layer.module.hidden_size, int)
        return layer.module.hidden_size, (layer.module, layer.attribute.replace("_hh", "_ih"))
    return layer.shape[0], layer.name
