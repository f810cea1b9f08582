"""Conv-2, Conv-4 and Conv-6: scaled-down VGG networks (Frankle & Carbin 2019, section 3 and figure 2)."""

from __future__ import annotations

from pydantic import PositiveFloat
from torch import nn

from tombola.zoo.networks.images import Images, scaled
from tombola.zoo.networks.initialise import Initialisation, initialise
from tombola.zoo.networks.mlp import Probability

CHANNELS = [64, 128, 256]
"""Of the two convolutions before each max pooling."""
UNITS = [256, 256]


def conv_2(
    inputs: tuple[int, ...],
    classes: int,
    init: Initialisation = "glorot-normal",
    dropout: Probability = 0.0,
    width: PositiveFloat = 1.0,
) -> nn.Sequential:
    """Conv-2: 4,300,992 weights on CIFAR-10, 38,592 of them in convolutions. Options: see `_conv`."""
    return _conv("conv-2", inputs, classes, init, dropout, width)


def conv_4(
    inputs: tuple[int, ...],
    classes: int,
    init: Initialisation = "glorot-normal",
    dropout: Probability = 0.0,
    width: PositiveFloat = 1.0,
) -> nn.Sequential:
    """Conv-4: 2,425,024 weights on CIFAR-10, 259,776 of them in convolutions. Options: see `_conv`."""
    return _conv("conv-4", inputs, classes, init, dropout, width)


def conv_6(
    inputs: tuple[int, ...],
    classes: int,
    init: Initialisation = "glorot-normal",
    dropout: Probability = 0.0,
    width: PositiveFloat = 1.0,
) -> nn.Sequential:
    """Conv-6: 2,261,184 weights on CIFAR-10, 1,144,512 of them in convolutions. Options: see `_conv`."""
    return _conv("conv-6", inputs, classes, init, dropout, width)


def _conv(
    name: str, inputs: tuple[int, ...], classes: int, init: Initialisation, dropout: float, width: float
) -> nn.Sequential:
    """3×3 convolutions, two before each 2×2 max pooling, two hidden linear layers; ReLU behind each.

    `dropout` is the probability of dropping a hidden unit, behind each hidden linear layer. In the paper it is 0.5
    (section 3, figure 6); where it stands, the paper does not say, and this is our reading. `width`
    multiplies the number of channels and hidden units.
    """
    pools = int(name.removeprefix("conv-")) // 2
    images = Images.of(inputs, name, least=2**pools)
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
