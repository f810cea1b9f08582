"""LeNet-5: the small convolutional network for MNIST."""

from __future__ import annotations

from torch import nn

from tombola.zoo.models.image_shape import ImageShape
from tombola.zoo.models.initialise import Initialisation, initialise

SIDE = 32
"""Pixels a side of the images in the paper; smaller images are padded with zeros."""


def lenet_5(inputs: tuple[int, ...], classes: int, init: Initialisation = "glorot-normal") -> nn.Sequential:
    """LeNet-5 (LeCun et al. 1998, section II.B) as it is built today: 61,470 weights on MNIST.

    ReLU replaces the scaled tanh, max pooling the trainable subsampling, and a linear output the radial basis
    functions; the second convolution takes all channels of the first.
    """
    images = ImageShape.of(inputs, "lenet-5")
    padding = [max(0, SIDE - side + 1) // 2 for side in (images.height, images.width)]
    rows, columns = (
        ((side + 2 * pad - 4) // 2 - 4) // 2 for side, pad in zip((images.height, images.width), padding, strict=True)
    )
    layers = images.first_layers()
    layers["conv1"] = nn.Conv2d(images.channels, 6, 5, padding=(padding[0], padding[1]))
    layers["relu1"] = nn.ReLU()
    layers["pool1"] = nn.MaxPool2d(2)
    layers["conv2"] = nn.Conv2d(6, 16, 5)
    layers["relu2"] = nn.ReLU()
    layers["pool2"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["fc1"] = nn.Linear(16 * rows * columns, 120)
    layers["relu3"] = nn.ReLU()
    layers["fc2"] = nn.Linear(120, 84)
    layers["relu4"] = nn.ReLU()
    layers["output"] = nn.Linear(84, classes)
    return initialise(nn.Sequential(layers), init)
