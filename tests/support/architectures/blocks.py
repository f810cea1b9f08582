"""Parts that many architectures have."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def images(channels: int = 3, side: int = 8, batch: int = 2) -> Tensor:
    return torch.randn(batch, channels, side, side)


def conv_bn(
    before: int,
    after: int,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    act: Callable[[], nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """A convolution without bias that keeps the size at stride 1, batch norm and, unless None, an activation."""
    conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), *([act()] if act else []))


class Residual(nn.Module):
    """`after` of the sum of `body` and `shortcut`, applied to the same input."""

    def __init__(
        self, body: nn.Module, shortcut: nn.Module | None = None, after: Callable[[], nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut or nn.Identity()
        self.after = after()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.body(x) + self.shortcut(x))  # type: ignore[no-any-return]


class SqueezeExcite(nn.Module):
    """Scales channels by a gate that is computed from their means (Hu et al. 2018)."""

    def __init__(
        self,
        channels: int,
        hidden: int,
        act: Callable[[], nn.Module] = nn.ReLU,
        gate: Callable[[], nn.Module] = nn.Sigmoid,
    ) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, hidden, 1), act(), nn.Conv2d(hidden, channels, 1), gate()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)  # type: ignore[no-any-return]


def head(features: int, classes: int = 5) -> nn.Sequential:
    """Global average pooling and a classifier."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, classes))


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of `groups` groups (Zhang et al. 2018, ShuffleNet)."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)
