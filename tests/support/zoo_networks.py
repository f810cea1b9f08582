"""The networks of the zoo, built for tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tombola.zoo.models import MODELS, build
from tombola.zoo.models.description import Network, Start

CIFAR = (3, 32, 32)
MNIST = (28, 28)

NEEDED: dict[str, dict[str, Any]] = {"mlp": {"widths": [20]}, "resnet": {"depth": 8}}
"""Options without a default, by network."""
SMALL: dict[str, dict[str, Any]] = {
    "lenet-300-100": {},
    "mlp": {"widths": [20]},
    "lenet-5": {},
    "conv-2": {"width": 0.05},
    "conv-4": {"width": 0.05},
    "conv-6": {"width": 0.05},
    "resnet": {"depth": 8, "width": 3},
    "resnet-18": {"width": 3},
    "resnet-20": {"width": 3},
    "resnet-50": {"width": 2},
    "vgg-11": {"width": 0.05},
    "vgg-16": {"width": 0.05},
    "vgg-19": {"width": 0.05},
    "vit": {"width": 12, "depth": 2},
}
"""Options that make every network of the zoo small."""
IMAGES = sorted(set(MODELS) - {"lenet-300-100", "mlp"})
"""Networks that take only images."""


def make_start(name: str, seed: int = 0, inputs: tuple[int, ...] = CIFAR, classes: int = 10, **options: Any) -> Start:
    return Start(network=Network(name=name, options=options, inputs=inputs, classes=classes), seed=seed)


def build_network(
    name: str, seed: int = 0, inputs: tuple[int, ...] = CIFAR, classes: int = 10, **options: Any
) -> nn.Module:
    return build(make_start(name, seed, inputs, classes, **options))


def output_of(network: nn.Module, inputs: tuple[int, ...], examples: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    output: torch.Tensor = network(torch.rand(examples, *inputs, generator=generator))
    return output
