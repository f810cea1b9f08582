"""Networks for tests of exports: one with every kind of layer, and those of any function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.random_networks import randomise, sparsify


class FunctionNetwork(nn.Module):
    """A network whose forward pass is `function(network, input)`; layers by name."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sparse() -> tuple[nn.Module, Tensor]:
    """A sparse network in training mode with most kinds of layers, and a batch of inputs."""
    network = nn.Sequential(
        nn.Conv2d(2, 8, 3, stride=2, padding="valid", dilation=2),
        nn.BatchNorm2d(8),
        nn.GELU(),
        nn.Conv2d(8, 8, (3, 1), padding="same", groups=4, bias=False),
        nn.MaxPool2d(2),
        nn.ConvTranspose2d(8, 4, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    return sparsify(randomise(network), 0.3, seed=0), images(3, 2, 11, 11)
