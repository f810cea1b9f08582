"""VGG networks (Simonyan & Zisserman 2015, table 1) as they are built for CIFAR-10."""

from __future__ import annotations

from pydantic import PositiveFloat
from torch import nn

from tombola.zoo.networks.images import Images, scaled
from tombola.zoo.networks.initialise import Initialisation, NormWeights, initialise

CHANNELS = [64, 128, 256, 512, 512]
CONVOLUTIONS = {"vgg-11": [1, 1, 2, 2, 2], "vgg-16": [2, 2, 3, 3, 3], "vgg-19": [2, 2, 4, 4, 4]}
"""How many of them each stage has: columns A, D and E of the table."""


def vgg_11(
    inputs: tuple[int, ...],
    classes: int,
    width: PositiveFloat = 1.0,
    init: Initialisation = "glorot-normal",
    norm: NormWeights = "ones",
) -> nn.Sequential:
    """VGG-11: 9,222,848 weights on CIFAR-10. Options: see `_vgg`."""
    return _vgg("vgg-11", inputs, classes, width, init, norm)


def vgg_16(
    inputs: tuple[int, ...],
    classes: int,
    width: PositiveFloat = 1.0,
    init: Initialisation = "glorot-normal",
    norm: NormWeights = "ones",
) -> nn.Sequential:
    """VGG-16 (Frankle et al. 2020): 14,715,584 weights on CIFAR-10. Options: see `_vgg`."""
    return _vgg("vgg-16", inputs, classes, width, init, norm)


def vgg_19(
    inputs: tuple[int, ...],
    classes: int,
    width: PositiveFloat = 1.0,
    init: Initialisation = "glorot-normal",
    norm: NormWeights = "ones",
) -> nn.Sequential:
    """VGG-19 (Frankle & Carbin 2019, figure 2): 20,024,000 weights on CIFAR-10. Options: see `_vgg`."""
    return _vgg("vgg-19", inputs, classes, width, init, norm)


def _vgg(
    name: str, inputs: tuple[int, ...], classes: int, width: float, init: Initialisation, norm: NormWeights
) -> nn.Sequential:
    """3×3 convolutions with batch norm in five stages, max pooling between them; then the average over all pixels,
    and one linear layer. `width` multiplies the number of channels.
    """
    images = Images.of(inputs, name, least=2 ** (len(CHANNELS) - 1))
    layers = images.layers()
    before, index = images.channels, 0
    for stage, (channels, convolutions) in enumerate(zip(CHANNELS, CONVOLUTIONS[name], strict=True)):
        if stage:
            layers[f"pool{stage}"] = nn.MaxPool2d(2)
        after = scaled(channels, width)
        for _ in range(convolutions):
            index += 1
            layers[f"conv{index}"] = nn.Conv2d(before, after, 3, padding=1, bias=False)
            layers[f"bn{index}"] = nn.BatchNorm2d(after)
            layers[f"relu{index}"] = nn.ReLU()
            before = after
    layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["output"] = nn.Linear(before, classes)
    network = nn.Sequential(layers)
    initialise(network, init, norm)
    return network
