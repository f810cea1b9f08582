"""Conv-2, Conv-4 and Conv-6: scaled-down VGG networks (Frankle & Carbin 2019, section 3 and figure 2)."""

from __future__ import annotations

from pydantic import PositiveFloat
from torch import nn

from tombola.zoo.models.image_shape import ImageShape, scale_width
from tombola.zoo.models.initialise import Initialisation, initialise
from tombola.zoo.models.mlp import Probability, linear_layers

CHANNELS = [64, 128, 256]
"""Of the two convolutions before each max pooling."""
HIDDEN_UNITS = [256, 256]


def conv(
    convolutions: int,
    inputs: tuple[int, ...],
    classes: int,
    init: Initialisation = "glorot-normal",
    dropout: Probability = 0.0,
    width: PositiveFloat = 1.0,
) -> nn.Sequential:
    """3×3 convolutions, two before each 2×2 max pooling, then two hidden linear layers; each followed by ReLU.

    `convolutions` is 2, 4 or 6: on CIFAR-10 4,300,992 weights, 38,592 of them in convolutions; 2,425,024 and 259,776;
    2,261,184 and 1,144,512.
    `dropout` is the probability of dropping a hidden unit, after each hidden linear layer. The paper uses 0.5
    (section 3, figure 6) but does not say in which layers; this is our reading. `width` multiplies the numbers of
    channels and hidden units.
    """
    pools = convolutions // 2
    images = ImageShape.of(inputs, f"conv-{convolutions}", min_side=2**pools)
    layers = images.first_layers()
    before = images.channels
    for pool, channels in enumerate(CHANNELS[:pools], start=1):
        for index in (2 * pool - 1, 2 * pool):
            after = scale_width(channels, width)
            layers[f"conv{index}"] = nn.Conv2d(before, after, 3, padding=1)
            layers[f"relu{index}"] = nn.ReLU()
            before = after
        layers[f"pool{pool}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    before *= (images.height >> pools) * (images.width >> pools)
    units = [scale_width(number, width) for number in HIDDEN_UNITS]
    layers |= linear_layers(before, units, classes, dropout, first_relu=convolutions + 1)
    return initialise(nn.Sequential(layers), init)
