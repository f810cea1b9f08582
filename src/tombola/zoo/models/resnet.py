"""Residual networks for small images (He et al. 2015, "Deep residual learning for image recognition")."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from tombola.utils.errors import InputError
from tombola.zoo.models.image_shape import ImageShape
from tombola.zoo.models.initialise import Initialisation, NormWeights, initialise

Shortcut = Literal["projection", "identity"]


class Subsample(nn.Module):
    """Every second pixel, and zeros for the additional channels: (N, C, H, W) -> (N, channels, H/2, W/2). The
    parameter-free shortcut of He et al. 2015, section 4.2 (option A)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.channels - x.shape[1]))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with batch norm, and a shortcut around them."""

    def __init__(self, before: int, channels: int, halve: bool, shortcut: Shortcut) -> None:
        super().__init__()
        stride = 2 if halve else 1
        self.conv1 = nn.Conv2d(before, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if halve and shortcut == "projection":
            conv = nn.Conv2d(before, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(channels))
        elif halve:
            self.shortcut = Subsample(channels)

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


def resnet(
    inputs: tuple[int, ...],
    classes: int,
    depth: Annotated[int, Field(ge=8)],
    shortcut: Shortcut = "projection",
    width: PositiveInt = 16,
    init: Initialisation = "glorot-normal",
    norm: NormWeights = "ones",
) -> nn.Sequential:
    """A ResNet for CIFAR-10 (He et al. 2015, section 4.2): `depth` = 6n + 2 layers in three stages.

    `width` is the number of channels in the first stage. `shortcut`, where the shape changes: `projection`, a 1×1
    convolution with batch norm, as in the lottery-ticket papers; `identity`, as in He et al.
    Raises `InputError` for any other depth.
    """
    if depth % 6 != 2:
        raise InputError(f"model.depth: Input should be 6n + 2 (8, 14, 20, 32, 44, 56, 110), not {depth}")
    return _resnet("resnet", inputs, classes, [(depth - 2) // 6] * 3, width, init, norm, shortcut)


def resnet_20(
    inputs: tuple[int, ...],
    classes: int,
    shortcut: Shortcut = "projection",
    width: PositiveInt = 16,
    init: Initialisation = "glorot-normal",
    norm: NormWeights = "ones",
) -> nn.Sequential:
    """ResNet-20, which Frankle & Carbin 2019 call Resnet-18: 270,896 weights on CIFAR-10. Options: see `resnet`."""
    return _resnet("resnet-20", inputs, classes, [3, 3, 3], width, init, norm, shortcut)


def resnet_18(
    inputs: tuple[int, ...],
    classes: int,
    width: PositiveInt = 64,
    init: Initialisation = "glorot-normal",
    norm: NormWeights = "ones",
) -> nn.Sequential:
    """ResNet-18 (He et al. 2015, table 1) for 32×32 images: the first convolution is 3×3 with stride 1, without max
    pooling after it. 11,164,352 weights on CIFAR-10. `width` is the number of channels in the first stage.
    """
    return _resnet("resnet-18", inputs, classes, [2, 2, 2, 2], width, init, norm)


def _resnet(
    name: str,
    inputs: tuple[int, ...],
    classes: int,
    blocks: list[int],
    width: int,
    init: Initialisation,
    norm: NormWeights,
    shortcut: Shortcut = "projection",
) -> nn.Sequential:
    """`blocks` are their numbers by stage; each stage after the first doubles the channels and halves both sides."""
    images = ImageShape.of(inputs, name, min_side=2 ** (len(blocks) - 1))
    layers = images.first_layers()
    layers["conv"] = nn.Conv2d(images.channels, width, 3, padding=1, bias=False)
    layers["bn"] = nn.BatchNorm2d(width)
    layers["relu"] = nn.ReLU()
    before = width
    for stage, count in enumerate(blocks):
        channels = width << stage
        first = ResidualBlock(before, channels, stage > 0, shortcut)
        others = [ResidualBlock(channels, channels, False, shortcut) for _ in range(count - 1)]
        layers[f"stage{stage + 1}"] = nn.Sequential(first, *others)
        before = channels
    layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["output"] = nn.Linear(before, classes)
    return initialise(nn.Sequential(layers), init, norm)
