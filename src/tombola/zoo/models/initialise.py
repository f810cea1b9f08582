"""Distributions of initial weights. Biases start at zero (Frankle & Carbin 2019, figure 2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from tombola.pruning.layers import by_layer
from tombola.pruning.normalisation import normalisation_parameters
from tombola.pruning.prunable_layers import default_layers
from tombola.zoo.models.description import Reuse, Signs, Start

Initialisation = Literal["glorot-normal", "kaiming-normal", "signed-constant"]
NormWeights = Literal["ones", "uniform"]
_Network = TypeVar("_Network", bound=nn.Module)


@torch.no_grad()
def _signed_constant(weight: Tensor) -> Tensor:
    nn.init.kaiming_normal_(weight)
    fan_in = weight[0].numel()
    return weight.sign_().mul_(math.sqrt(2 / fan_in))


_DRAW: dict[str, Callable[..., object]] = {
    "glorot-normal": nn.init.xavier_normal_,
    "kaiming-normal": nn.init.kaiming_normal_,
    "signed-constant": _signed_constant,
}
_DRAW_NORM: dict[str, Callable[..., object]] = {"ones": nn.init.ones_, "uniform": nn.init.uniform_}


def initialise(network: _Network, how: Initialisation, norm: NormWeights = "ones") -> _Network:
    """Draw the weights of linear, convolutional and batch-norm layers anew, in place; return `network`.

    `glorot-normal`: standard deviation sqrt(2 / (fan in + fan out)) (Glorot & Bengio 2010).
    `kaiming-normal`: standard deviation sqrt(2 / fan in) (He et al. 2015).
    `signed-constant`: plus or minus that standard deviation, at random (Ramanujan et al. 2020, section 4).
    `norm` is for batch norm: all ones, or uniform in [0, 1) (facebookresearch/open_lth).
    """
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            _DRAW[how](module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            _DRAW_NORM[norm](module.weight)
    return network


@torch.no_grad()
def reorder(network: nn.Module, reuse: Reuse) -> None:
    """Permute the weights within each layer that is prunable by default, in place."""
    generator = np.random.default_rng(reuse.seed)
    parameters = by_layer(dict(network.named_parameters()))
    for layer in default_layers(network):
        weights = parameters[layer.name].view(-1)
        groups = [weights > 0, weights <= 0] if reuse.keep_signs else [torch.ones_like(weights, dtype=torch.bool)]
        for group in groups:
            indices = group.nonzero().squeeze(1)
            weights[indices] = weights[indices[torch.from_numpy(generator.permutation(len(indices)))]]


@torch.no_grad()
def change_signs(network: nn.Module, signs: Signs, make: Callable[[Start], nn.Module]) -> None:
    """Give the weights of each layer that is prunable by default the signs that `signs` describes, in place.
    `make` makes the network with other weights."""
    weights = _prunable_weights(network)
    if signs.of is None:
        generator = np.random.default_rng(signs.seed)
        for weight in weights.values():
            drawn = torch.from_numpy(generator.integers(0, 2, weight.numel())).view_as(weight)
            weight.abs_().mul_(2 * drawn.to(weight) - 1)
        return
    other = make(signs.of)
    for name, weight in _prunable_weights(other).items():
        sign = weight.sign()
        weights[name].copy_(torch.where(sign == 0, weights[name], weights[name].abs() * sign))
    if signs.normalisation:
        for name in normalisation_parameters(network):
            network.get_parameter(name).copy_(other.get_parameter(name))


def _prunable_weights(network: nn.Module) -> dict[str, Tensor]:
    """The weights of each layer that is prunable by default, by the name of the layer."""
    parameters = by_layer(dict(network.named_parameters()))
    return {layer.name: parameters[layer.name] for layer in default_layers(network)}
