"""Fully connected networks: LeNet-300-100, and any other widths."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Annotated

from pydantic import Field, PositiveInt
from torch import nn

from tombola.zoo.models.initialise import Initialisation, initialise

Probability = Annotated[float, Field(ge=0, lt=1)]


def linear_layers(
    inputs: int, widths: list[int], classes: int, dropout: float, first_relu: int = 1
) -> OrderedDict[str, nn.Module]:
    """Linear layers `fc1`, `fc2`, … with `widths` units, each followed by ReLU and dropout; then `output`."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, width in enumerate(widths):
        layers[f"fc{index + 1}"] = nn.Linear(inputs, width)
        layers[f"relu{index + first_relu}"] = nn.ReLU()
        if dropout:
            layers[f"dropout{index + 1}"] = nn.Dropout(dropout)
        inputs = width
    layers["output"] = nn.Linear(inputs, classes)
    return layers


def mlp(
    inputs: tuple[int, ...],
    classes: int,
    widths: list[PositiveInt],
    init: Initialisation = "glorot-normal",
    dropout: Probability = 0.0,
) -> nn.Sequential:
    """Linear layers with ReLU between them: `fc1`, `fc2`, … and `output`. `widths` are the numbers of hidden units;
    `dropout` is the probability of dropping a hidden unit, in [0, 1)."""
    layers = linear_layers(math.prod(inputs), widths, classes, dropout)
    return initialise(nn.Sequential(OrderedDict(flatten=nn.Flatten()) | layers), init)


def lenet_300_100(
    inputs: tuple[int, ...], classes: int, init: Initialisation = "glorot-normal", dropout: Probability = 0.0
) -> nn.Sequential:
    """LeNet-300-100 (LeCun et al. 1998; Frankle & Carbin 2019, figure 2): 266,200 weights on MNIST."""
    return mlp(inputs, classes, widths=[300, 100], init=init, dropout=dropout)
