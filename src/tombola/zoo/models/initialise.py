"""Distributions of initial weights. Biases start at zero (Frankle & Carbin 2019, figure 2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from tombola.pruning.layers import by_layer
from tombola.pruning.prunable_layers import default_layers
from tombola.zoo.models.description import Reuse

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
