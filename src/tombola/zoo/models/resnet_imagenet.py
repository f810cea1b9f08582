"""Residual networks for ImageNet (He et al. 2015, "Deep residual learning for image recognition", table 1)."""

from __future__ import annotations

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from tombola.zoo.models.image_shape import ImageShape
from tombola.zoo.models.initialise import Initialisation, NormWeights, initialise

EXPANSION = 4
"""A bottleneck block returns so many times the channels of its 3×3 convolution."""


class BottleneckBlock(nn.Module):
    """A 1×1, a 3×3 and a 1×1 convolution with batch norm, and a shortcut around them. As in torchvision, the 3×3
    convolution has the stride, not the first one, which it has in the paper."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        after = EXPANSION * channels
        self.conv1 = nn.Conv2d(before, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, after, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if before != after or stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.bn1(self.conv1(x)))
        inner = functional.relu(self.bn2(self.conv2(inner)))
        return functional.relu(self.bn3(self.conv3(inner)) + self.shortcut(x))


def resnet_50(
    inputs: tuple[int, ...],
    classes: int,
    width: PositiveInt = 64,
    init: Initialisation = "glorot-normal",
    norm: NormWeights = "ones",
) -> nn.Sequential:
    """ResNet-50 for ImageNet: 25,502,912 weights with 1,000 classes, the same as torchvision's. `width` is the number
    of channels in the first stage; the first convolution has stride 2, with max pooling after it."""
    images = ImageShape.of(inputs, "resnet-50", min_side=16)
    layers = images.first_layers()
    layers["conv"] = nn.Conv2d(images.channels, width, 7, 2, padding=3, bias=False)
    layers["bn"] = nn.BatchNorm2d(width)
    layers["relu"] = nn.ReLU()
    layers["pool"] = nn.MaxPool2d(3, 2, padding=1)
    before = width
    for stage, count in enumerate([3, 4, 6, 3]):
        channels = width << stage
        blocks = []
        for block in range(count):
            blocks.append(BottleneckBlock(before, channels, 2 if stage and not block else 1))
            before = EXPANSION * channels
        layers[f"stage{stage + 1}"] = nn.Sequential(*blocks)
    layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["output"] = nn.Linear(before, classes)
    return initialise(nn.Sequential(layers), init, norm)
