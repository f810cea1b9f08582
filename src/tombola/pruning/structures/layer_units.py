"""Units within one layer: neurons, channels, tiles."""

from __future__ import annotations

import torch
from torch import Tensor

from tombola.pruning.layers import Kind, Layer, outputs_first
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.pruning.structures.unit_structure import UnitStructure

_WITH_NEURONS: tuple[Kind, ...] = ("linear", "Conv1D", "projection", "bilinear", "recurrent")
_WITH_CHANNELS: tuple[Kind, ...] = ("convolution", "transposed convolution")


def neurons(network: PrunableNetwork) -> UnitStructure:
    """A unit is a row of a linear layer: all weights of one neuron. Of an LSTM, GRU or RNN it is a hidden unit: its
    rows of all gates, in the weights of the input and of the hidden state. Output layers, with one row per class,
    have no units. A mask covers weights alone: a pruned neuron still outputs its bias."""
    return _hidden_outputs(network, _WITH_NEURONS, "neurons")


def channels(network: PrunableNetwork) -> UnitStructure:
    """A unit is a filter of a convolution: all weights of one output channel (Li et al. 2017, section 3). Output
    layers have no units. A mask covers weights alone: biases and normalisation stay."""
    return _hidden_outputs(network, _WITH_CHANNELS, "channels")


def blocks(network: PrunableNetwork, height: int, width: int) -> UnitStructure:
    """A unit is a tile of `height` outputs by `width` inputs of the weight as a matrix [out, in × kernel], also in
    transposed convolutions; of stacked experts, a tile of one expert's matrix as it is stored. Tiles at the edges are
    smaller (Gray et al. 2017; Narang et al. 2017)."""
    ids: dict[str, Tensor] = {}
    first = 0
    for name, layer in network.layers.items():
        shape = outputs_first(torch.empty(layer.shape, device="meta"), layer).shape
        experts, rows = shape[:2] if layer.kind == "stacked matrices" else (1, shape[0])
        columns = torch.Size(shape).numel() // (experts * rows)
        down, across = -(-rows // height), -(-columns // width)
        expert, row, column = torch.arange(experts), torch.arange(rows), torch.arange(columns)
        tiles = (expert[:, None, None] * down + row[:, None] // height) * across + column // width
        ids[name] = first + outputs_first(tiles.view(shape), layer)
        first += experts * down * across
    return UnitStructure(ids, "blocks")


def _hidden_outputs(network: PrunableNetwork, kinds: tuple[Kind, ...], what: str) -> UnitStructure:
    """The units of the outputs of all layers of these kinds that are not output layers."""
    ids: dict[str, Tensor] = {}
    first_ids: dict[object, int] = {}
    count = 0
    for name, layer in network.layers.items():
        if layer.kind not in kinds or name in network.outputs:
            continue
        shape = outputs_first(torch.empty(layer.shape, device="meta"), layer).shape
        units, group = _units(layer, shape[0])
        first = first_ids.setdefault(group, count)
        count = max(count, first + units)
        own = first + torch.arange(shape[0]) % units
        ids[name] = outputs_first(own.view(-1, *[1] * (len(shape) - 1)).expand(shape), layer)
    return UnitStructure(ids, what)


def _units(layer: Layer, rows: int) -> tuple[int, object]:
    """How many units the rows of a layer belong to, and a key that layers with the same units share."""
    if layer.kind == "recurrent" and "_hr" not in layer.attribute:  # weight_hr projects the hidden state
        assert isinstance(layer.module.hidden_size, int)
        return layer.module.hidden_size, (layer.module, layer.attribute.replace("_hh", "_ih"))
    return rows, layer.name
