"""Plain and mobile convolutional networks: depthwise and grouped convolutions, channel shuffle, gates."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.support.architectures.architecture import Made, seeded
from tests.support.architectures.blocks import SqueezeExcite, conv_bn, head, images, shuffle


@seeded
def lenet() -> Made:
    """Convolutions, pooling, flattening, linear layers (LeCun et al. 1998)."""
    features = [nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 8, 3), nn.Tanh()]
    classifier = [nn.Flatten(), nn.Linear(32, 12), nn.Tanh(), nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 5)]
    return nn.Sequential(*features, *classifier), images(1)


@seeded
def vgg_bn() -> Made:
    """Convolutions with bias and batch norm, max pooling, a classifier of two layers (Simonyan & Zisserman 2015)."""
    layers: list[nn.Module] = []
    for before, after in ((3, 8), (8, 8), (8, 12)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        layers += [nn.MaxPool2d(2)] if after != before else []
    classifier = [nn.Flatten(), nn.Dropout(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 5)]
    return nn.Sequential(*layers, *classifier), images()


class _InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, a gate or not, projection; added to the input where the shape is the same."""

    def __init__(
        self, before: int, middle: int, after: int, stride: int, act: Callable[[], nn.Module], gate: nn.Module
    ) -> None:
        super().__init__()
        self.expand = conv_bn(before, middle, 1, act=act)
        self.depthwise = conv_bn(middle, middle, 3, stride, groups=middle, act=act)
        self.gate = gate
        self.project = conv_bn(middle, after, 1, act=None)
        self.added = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.gate(self.depthwise(self.expand(x))))
        return x + y if self.added else y  # type: ignore[no-any-return]


@seeded
def mobilenet_v2() -> Made:
    """Inverted residuals (Sandler et al. 2018)."""
    sizes = [(6, 12, 8, 1), (8, 16, 8, 1), (8, 16, 12, 2), (12, 20, 12, 1)]
    blocks = [_InvertedResidual(*size, nn.ReLU6, nn.Identity()) for size in sizes]
    return nn.Sequential(conv_bn(3, 6, act=nn.ReLU6), *blocks, conv_bn(12, 20, 1, act=nn.ReLU6), head(20)), images()


@seeded
def mobilenet_v3() -> Made:
    """Squeeze-and-excite before the projection, hard-swish (Howard et al. 2019)."""
    blocks = [
        _InvertedResidual(8, 16, 8, 1, nn.Hardswish, SqueezeExcite(16, 4, gate=nn.Hardsigmoid)),
        _InvertedResidual(8, 20, 12, 2, nn.Hardswish, SqueezeExcite(20, 4, gate=nn.Hardsigmoid)),
    ]
    end = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(12, 16, 1), nn.Hardswish(), nn.Flatten(), nn.Linear(16, 5)]
    return nn.Sequential(conv_bn(3, 8, act=nn.Hardswish), *blocks, *end), images()


@seeded
def efficientnet() -> Made:
    """MBConv blocks with SiLU (Tan & Le 2019)."""
    blocks = [
        _InvertedResidual(8, 16, 8, 1, nn.SiLU, SqueezeExcite(16, 2, act=nn.SiLU)),
        _InvertedResidual(8, 24, 12, 2, nn.SiLU, SqueezeExcite(24, 2, act=nn.SiLU)),
        _InvertedResidual(12, 24, 12, 1, nn.SiLU, SqueezeExcite(24, 3, act=nn.SiLU)),
    ]
    return nn.Sequential(conv_bn(3, 8, act=nn.SiLU), *blocks, conv_bn(12, 16, 1, act=nn.SiLU), head(16)), images()


class _ShuffleV1(nn.Module):
    """Grouped 1×1 convolutions with the channels shuffled between them. With stride 2, the pooled input is
    concatenated instead of added."""

    def __init__(self, before: int, middle: int, after: int, groups: int, stride: int) -> None:
        super().__init__()
        self.groups, self.stride = groups, stride
        self.reduce = conv_bn(before, middle, 1, groups=groups)
        self.depthwise = conv_bn(middle, middle, 3, stride, groups=middle, act=None)
        self.expand = conv_bn(middle, after - before if stride == 2 else after, 1, groups=groups, act=None)
        self.pool = nn.AvgPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(self.depthwise(shuffle(self.reduce(x), self.groups)))
        return torch.relu(torch.cat([self.pool(x), y], 1) if self.stride == 2 else x + y)


@seeded
def shufflenet_v1() -> Made:
    """Grouped convolutions and channel shuffle (Zhang et al. 2018)."""
    blocks = [_ShuffleV1(8, 8, 8, 2, 1), _ShuffleV1(8, 8, 16, 2, 2), _ShuffleV1(16, 8, 16, 4, 1)]
    return nn.Sequential(conv_bn(3, 8), *blocks, head(16)), images()


class _ShuffleV2(nn.Module):
    """Half the channels pass, the others go through convolutions; then they are concatenated and shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv_bn(half, half, 1), conv_bn(half, half, groups=half, act=None), conv_bn(half, half, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, dim=1)
        return shuffle(torch.cat((kept, self.branch(changed)), dim=1), 2)


class _ShuffleV2Down(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        half = after // 2
        self.one = nn.Sequential(conv_bn(before, before, 3, 2, before, act=None), conv_bn(before, half, 1))
        self.other = nn.Sequential(
            conv_bn(before, half, 1), conv_bn(half, half, 3, 2, half, act=None), conv_bn(half, half, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return shuffle(torch.cat((self.one(x), self.other(x)), dim=1), 2)


@seeded
def shufflenet_v2() -> Made:
    """Channel split, concatenation and shuffle (Ma et al. 2018)."""
    blocks = [_ShuffleV2(8), _ShuffleV2Down(8, 16), _ShuffleV2(16), _ShuffleV2(16)]
    return nn.Sequential(conv_bn(3, 8), *blocks, conv_bn(16, 20, 1), head(20)), images()


class _Inception(nn.Module):
    def __init__(self, before: int) -> None:
        super().__init__()
        self.one = conv_bn(before, 4, 1)
        self.three = nn.Sequential(conv_bn(before, 4, 1), conv_bn(4, 6))
        self.five = nn.Sequential(conv_bn(before, 3, 1), conv_bn(3, 4, 5))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_bn(before, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], 1)


@seeded
def googlenet() -> Made:
    """Parallel branches, concatenated (Szegedy et al. 2015)."""
    layers = [conv_bn(3, 8), _Inception(8), nn.MaxPool2d(2), _Inception(18), nn.Dropout(0.4)]
    return nn.Sequential(*layers, head(18)), images()
