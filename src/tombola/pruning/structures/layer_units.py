"""Units within one layer: neurons, channels, tiles."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tombola.pruning.mask import prunable
from tombola.pruning.structures.unit_structure import UnitStructure


def neurons(network: nn.Module) -> UnitStructure:
    """A unit is a row of a linear layer: all weights of one neuron. The output layer, with one row per class, has no
    units. A mask covers weights alone: a pruned neuron still outputs its bias."""
    return _outputs(network, nn.Linear, "neurons")


def channels(network: nn.Module) -> UnitStructure:
    """A unit is a filter of a convolution: all weights of one output channel (Li et al. 2017, section 3). An output
    layer has no units. A mask covers weights alone: biases and normalisation stay."""
    return _outputs(network, _ConvNd, "channels")


def blocks(network: nn.Module, height: int, width: int) -> UnitStructure:
    """A unit is a tile of `height` outputs by `width` inputs of the weight as a matrix [out, in × kernel], also in
    transposed convolutions; tiles at the edges are smaller (Gray et al. 2017; Narang et al. 2017)."""

    def tiles(weight: Tensor) -> Tensor:
        rows, columns = weight.flatten(1).shape
        across = -(-columns // width)
        down = torch.arange(rows).unsqueeze(1) // height
        return (down * across + torch.arange(columns) // width).view(weight.shape)

    return UnitStructure(_unique_ids(network, tiles, prunable(network)), "blocks")


def _outputs(network: nn.Module, kind: type[nn.Module], what: str) -> UnitStructure:
    layers = dict(network.named_modules())
    hidden = [name for name in prunable(network)[:-1] if isinstance(layers[name.removesuffix(".weight")], kind)]
    return UnitStructure(_unique_ids(network, _rows, hidden), what)


def _rows(weight: Tensor) -> Tensor:
    return torch.arange(len(weight)).view(-1, *(1 for _ in weight.shape[1:])).expand(weight.shape)


def _transposed(weight: Tensor, groups: int) -> Tensor:
    """[in, out / groups, *kernel], the layout of transposed convolutions, to [out, in / groups, *kernel] or back."""
    return weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)


def _unique_ids(network: nn.Module, units: Callable[[Tensor], Tensor], names: list[str]) -> dict[str, Tensor]:
    """The unit ids of these layers, ascending; `units` numbers those of a weight [out, in / groups, *kernel]."""
    layers, parameters = dict(network.named_modules()), dict(network.named_parameters())
    ids: dict[str, Tensor] = {}
    first = 0
    for name in names:
        layer, weight = layers[name.removesuffix("weight").removesuffix(".")], parameters[name]
        if isinstance(layer, _ConvTransposeNd):
            own = _transposed(units(_transposed(weight, layer.groups)), layer.groups)
        else:
            own = units(weight)
        ids[name] = own + first
        first += int(own.max()) + 1
    return ids
