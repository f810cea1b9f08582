"""Residual networks and DenseNet: streams of channels that additions and concatenations tie together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.support.architectures.architecture import Made, seeded
from tests.support.architectures.blocks import Residual, SqueezeExcite, conv_bn, head, images


def _basic(before: int, after: int, stride: int = 1, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> Residual:
    body = nn.Sequential(
        nn.Conv2d(before, after, 3, stride, 1, bias=False), norm(after), nn.ReLU(),
        nn.Conv2d(after, after, 3, 1, 1, bias=False), norm(after),
    )  # fmt: skip
    if stride == 1 and before == after:
        return Residual(body)
    return Residual(body, nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), norm(after)))


@seeded
def resnet_20_like() -> Made:
    """Three stages of basic blocks, projections between them (He et al. 2016)."""
    blocks = [_basic(6, 6), _basic(6, 6), _basic(6, 12, 2), _basic(12, 12), _basic(12, 16, 2), _basic(16, 16)]
    return nn.Sequential(conv_bn(3, 6), *blocks, head(16)), images()


def _bottleneck(before: int, middle: int, after: int, groups: int = 1, se: bool = False) -> Residual:
    gate = [SqueezeExcite(after, 4)] if se else []
    body = nn.Sequential(
        conv_bn(before, middle, 1), conv_bn(middle, middle, groups=groups), conv_bn(middle, after, 1, act=None), *gate
    )
    return Residual(body, None if before == after else conv_bn(before, after, 1, act=None))


@seeded
def resnet_bottleneck() -> Made:
    """Bottleneck blocks, as of ResNet-50, after a stem with max pooling."""
    stem = [conv_bn(3, 8, stride=2), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, _bottleneck(8, 4, 16), _bottleneck(16, 6, 16), head(16)), images(side=16)


@seeded
def resnext() -> Made:
    """Bottlenecks with grouped convolutions (Xie et al. 2017)."""
    return nn.Sequential(conv_bn(3, 8), _bottleneck(8, 12, 16, 4), _bottleneck(16, 12, 16, 4), head(16)), images()


@seeded
def se_resnet() -> Made:
    """Bottlenecks with squeeze-and-excite (Hu et al. 2018)."""
    blocks = [_bottleneck(8, 6, 16, se=True), _bottleneck(16, 6, 16, se=True)]
    return nn.Sequential(conv_bn(3, 8), *blocks, head(16)), images()


@seeded
def group_norm_resnet() -> Made:
    """Group norm instead of batch norm (Wu & He 2018)."""

    def norm(channels: int) -> nn.Module:
        return nn.GroupNorm(4, channels)

    stem = [nn.Conv2d(3, 8, 3, padding=1), norm(8), nn.ReLU()]
    return nn.Sequential(*stem, _basic(8, 8, 1, norm), _basic(8, 16, 2, norm), head(16)), images()


class _PreActivation(nn.Module):
    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.drop = nn.Dropout(0.3)
        self.project = nn.Conv2d(before, after, 1, stride, bias=False) if before != after else None

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.norm1(x))
        shortcut = x if self.project is None else self.project(inner)
        inner = self.conv2(self.drop(torch.relu(self.norm2(self.conv1(inner)))))
        return inner.add_(shortcut)  # type: ignore[no-any-return]


@seeded
def preactivation_resnet() -> Made:
    """Norm and activation before each convolution, so the stream itself has neither (He et al. 2016b)."""
    blocks = [_PreActivation(8, 8), _PreActivation(8, 12, 2), _PreActivation(12, 12)]
    end = [nn.BatchNorm2d(12), nn.ReLU(inplace=True)]
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), *blocks, *end, head(12)), images()


@seeded
def wide_resnet() -> Made:
    """Pre-activation blocks wider than the stem (Zagoruyko & Komodakis 2016)."""
    blocks = [_PreActivation(4, 16), _PreActivation(16, 16), _PreActivation(16, 24, 2)]
    end = [nn.BatchNorm2d(24), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(24, 5)]
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), *blocks, *end), images()


class _DenseLayer(nn.Module):
    def __init__(self, before: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(before), nn.BatchNorm2d(2 * growth)
        self.conv1 = nn.Conv2d(before, 2 * growth, 1, bias=False)
        self.conv2 = nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv2(torch.relu(self.norm2(self.conv1(torch.relu(self.norm1(x))))))
        return torch.cat([x, new], 1)


@seeded
def densenet() -> Made:
    """Every layer reads the outputs of all before it, concatenated (Huang et al. 2017)."""
    transition = [nn.BatchNorm2d(14), nn.ReLU(), nn.Conv2d(14, 8, 1, bias=False), nn.AvgPool2d(2)]
    first = [nn.Conv2d(3, 6, 3, padding=1, bias=False), _DenseLayer(6, 4), _DenseLayer(10, 4), *transition]
    second = [_DenseLayer(8, 4), _DenseLayer(12, 4), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*first, *second, head(16)), images()
