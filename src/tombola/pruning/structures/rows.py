"""Units of one layer: the weights of a neuron, of a channel, of a tile."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tombola.pruning.mask import prunable
from tombola.pruning.structures.unit_structure import UnitStructure


def neurons(network: nn.Module) -> UnitStructure:
    """The rows of linear layers: all weights into one neuron. Those of the output layer are classes, and no units.

    The mask speaks of weights: a neuron that is pruned still gives its bias.
    """
    return _outputs(network, nn.Linear, "neurons")


def channels(network: nn.Module) -> UnitStructure:
    """The filters of convolutions: all weights into one output channel (Li et al. 2017, section 3); not of an output
    layer. The mask speaks of weights: biases and normalisation stay."""
    return _outputs(network, _ConvNd, "channels")


def blocks(network: nn.Module, height: int, width: int) -> UnitStructure:
    """Tiles of `height` outputs by `width` inputs, row by row, of the weight as a matrix [out, in × kernel], also of
    transposed convolutions; at the edges tiles are what is left of them (Gray et al. 2017; Narang et al. 2017)."""

    def tiles(layer: nn.Module, weight: Tensor) -> Tensor:
        if isinstance(layer, _ConvTransposeNd):
            return _turned(of_matrix(_turned(weight, layer.groups)), layer.groups)
        return of_matrix(weight)

    def of_matrix(weight: Tensor) -> Tensor:
        rows, columns = weight.flatten(1).shape
        across = -(-columns // width)
        down = torch.arange(rows).unsqueeze(1) // height
        return (down * across + torch.arange(columns) // width).view(weight.shape)

    return UnitStructure(_numbered(network, tiles, prunable(network)), "blocks")


def _outputs(network: nn.Module, kind: type[nn.Module], what: str) -> UnitStructure:
    layers = dict(network.named_modules())
    hidden = [name for name in prunable(network)[:-1] if isinstance(layers[name.removesuffix(".weight")], kind)]
    return UnitStructure(_numbered(network, _output, hidden), what)


def _output(layer: nn.Module, weight: Tensor) -> Tensor:
    """Which output each weight leads to."""
    if isinstance(layer, _ConvTransposeNd):
        return _turned(_rows(_turned(weight, layer.groups)), layer.groups)
    return _rows(weight)


def _rows(weight: Tensor) -> Tensor:
    return torch.arange(len(weight)).view(-1, *(1 for _ in weight.shape[1:])).expand(weight.shape)


def _turned(weight: Tensor, groups: int) -> Tensor:
    """[in, out / groups, *kernel], as transposed convolutions have it -> [out, in / groups, *kernel]; and back."""
    return weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)


def _numbered(
    network: nn.Module, units: Callable[[nn.Module, Tensor], Tensor], names: list[str]
) -> dict[str, Tensor]:
    """The units of each of these layers, numbered on from those of the layer before."""
    layers, parameters = dict(network.named_modules()), dict(network.named_parameters())
    ids: dict[str, Tensor] = {}
    first = 0
    for name in names:
        own = units(layers[name.removesuffix("weight").removesuffix(".")], parameters[name])
        ids[name] = own + first
        first += int(own.max()) + 1
    return ids
