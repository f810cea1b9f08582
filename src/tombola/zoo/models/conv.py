"""Conv-2, Conv-4 and Conv-6: scaled-down VGG networks (Frankle & Carbin 2019, section 3 and figure 2)."""

from __future__ import annotations

from pydantic import PositiveFloat
from torch import nn

from tombola.zoo.models.images import Images, scaled
from tombola.zoo.models.initialise import Initialisation, initialise
from tombola.zoo.models.mlp import Probability

CHANNELS = [64, 128, 256]
"""Of the two convolutions before each max pooling."""
UNITS = [256, 256]


def conv(
    convolutions: int,
    inputs: tuple[int, ...],
    classes: int,
    init: Initialisation = "glorot-normal",
    dropout: Probability = 0.0,
    width: PositiveFloat = 1.0,
) -> nn.Sequential:
    """3×3 convolutions, two before each 2×2 max pooling, two hidden linear layers; ReLU behind each.

    `convolutions` is 2, 4 or 6: on CIFAR-10 4,300,992 weights, 38,592 of them in convolutions; 2,425,024 and 259,776;
    2,261,184 and 1,144,512.
    `dropout` is the probability of dropping a hidden unit, behind each hidden linear layer. In the paper it is 0.5
    (section 3, figure 6); where it stands, the paper does not say, and this is our reading. `width`
    multiplies the number of channels and hidden units.
    """
    pools = convolutions // 2
    images = Images.of(inputs, f"conv-{convolutions}", least=2**pools)
    layers = images.layers()
    before = images.channels
    for pool, channels in enumerate(CHANNELS[:pools], start=1):
        for index in (2 * pool - 1, 2 * pool):
            after = scaled(channels, width)
            layers[f"conv{index}"] = nn.Conv2d(before, after, 3, padding=1)
            layers[f"relu{index}"] = nn.ReLU()
            before = after
        layers[f"pool{pool}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    before *= (images.height >> pools) * (images.width >> pools)
    for index, units in enumerate(UNITS, start=1):
        after = scaled(units, width)
        layers[f"fc{index}"] = nn.Linear(before, after)
        layers[f"relu{2 * pools + index}"] = nn.ReLU()
        if dropout:
            layers[f"dropout{index}"] = nn.Dropout(dropout)
        before = after
    layers["output"] = nn.Linear(before, classes)
    network = nn.Sequential(layers)
    initialise(network, init)
    return network
