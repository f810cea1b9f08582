"""Distributions that initial weights are drawn from. Biases start at zero (Frankle & Carbin 2019, figure 2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import nn

Initialisation = Literal["glorot-normal", "kaiming-normal"]

_DRAW: dict[str, Callable[..., object]] = {
    "glorot-normal": nn.init.xavier_normal_,
    "kaiming-normal": nn.init.kaiming_normal_,
}


def initialise(network: nn.Module, how: Initialisation) -> None:
    """Draw the weights of linear and convolutional layers anew, in place.

    `glorot-normal`: standard deviation sqrt(2 / (fan in + fan out)) (Glorot & Bengio 2010).
    `kaiming-normal`: standard deviation sqrt(2 / fan in) (He et al. 2015).
    """
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            _DRAW[how](module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
