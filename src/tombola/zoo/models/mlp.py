"""Fully connected networks: LeNet-300-100 and any other widths."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Annotated

from pydantic import Field, PositiveInt
from torch import nn

from tombola.zoo.models.initialise import Initialisation, initialise

Probability = Annotated[float, Field(ge=0, lt=1)]


def mlp(
    inputs: tuple[int, ...],
    classes: int,
    widths: list[PositiveInt],
    init: Initialisation = "glorot-normal",
    dropout: Probability = 0.0,
) -> nn.Sequential:
    """Linear layers with ReLU between them: `fc1`, `fc2`, … and `output`.

    `widths` are the numbers of hidden units; `dropout` is the probability of dropping one, in [0, 1).
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    before = math.prod(inputs)
    for index, width in enumerate(widths, start=1):
        layers[f"fc{index}"] = nn.Linear(before, width)
        layers[f"relu{index}"] = nn.ReLU()
        if dropout:
            layers[f"dropout{index}"] = nn.Dropout(dropout)
        before = width
    layers["output"] = nn.Linear(before, classes)
    network = nn.Sequential(layers)
    initialise(network, init)
    return network


def lenet_300_100(
    inputs: tuple[int, ...], classes: int, init: Initialisation = "glorot-normal", dropout: Probability = 0.0
) -> nn.Sequential:
    """LeNet-300-100 (LeCun et al. 1998; Frankle & Carbin 2019, figure 2): 266,200 weights on MNIST."""
    return mlp(inputs, classes, widths=[300, 100], init=init, dropout=dropout)
