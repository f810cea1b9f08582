"""VGG networks (Simonyan & Zisserman 2015, table 1) in their form for CIFAR-10."""

from __future__ import annotations

from pydantic import PositiveFloat
from torch import nn

from tombola.zoo.models.image_shape import ImageShape, scale_width
from tombola.zoo.models.initialise import Initialisation, NormWeights, initialise

CHANNELS = [64, 128, 256, 512, 512]
CONVOLUTIONS = {11: [1, 1, 2, 2, 2], 16: [2, 2, 3, 3, 3], 19: [2, 2, 4, 4, 4]}
"""By depth, the number of convolutions in each stage: columns A, D and E of the table."""


def vgg(
    depth: int,
    inputs: tuple[int, ...],
    classes: int,
    width: PositiveFloat = 1.0,
    init: Initialisation = "glorot-normal",
    norm: NormWeights = "ones",
) -> nn.Sequential:
    """3×3 convolutions with batch norm in five stages, with max pooling between them; then the mean over all pixels
    and one linear layer. `depth` is 11, 16 (Frankle et al. 2020) or 19 (Frankle & Carbin 2019, figure 2): 9,222,848,
    14,715,584 and 20,024,000 weights on CIFAR-10. `width` multiplies the number of channels.
    """
    images = ImageShape.of(inputs, f"vgg-{depth}", min_side=2 ** (len(CHANNELS) - 1))
    layers = images.first_layers()
    before, index = images.channels, 0
    for stage, (channels, convolutions) in enumerate(zip(CHANNELS, CONVOLUTIONS[depth], strict=True)):
        if stage:
            layers[f"pool{stage}"] = nn.MaxPool2d(2)
        after = scale_width(channels, width)
        for _ in range(convolutions):
            index += 1
            layers[f"conv{index}"] = nn.Conv2d(before, after, 3, padding=1, bias=False)
            layers[f"bn{index}"] = nn.BatchNorm2d(after)
            layers[f"relu{index}"] = nn.ReLU()
            before = after
    layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["output"] = nn.Linear(before, classes)
    return initialise(nn.Sequential(layers), init, norm)
