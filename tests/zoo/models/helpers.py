"""Networks to test, and what they are made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tombola.pruning.mask import Mask
from tombola.zoo.models import MODELS, build
from tombola.zoo.models.description import Network, Start

CIFAR = (3, 32, 32)
MNIST = (28, 28)

NEEDED: dict[str, dict[str, Any]] = {"mlp": {"widths": [20]}, "resnet": {"depth": 8}}
"""Options without a default."""
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
    "vgg-11": {"width": 0.05},
    "vgg-16": {"width": 0.05},
    "vgg-19": {"width": 0.05},
    "vit": {"width": 12, "depth": 2},
}
"""Options that make every network of the zoo small."""
IMAGES = sorted(set(MODELS) - {"lenet-300-100", "mlp"})
"""Networks that take images only."""


def start(name: str, seed: int = 0, inputs: tuple[int, ...] = CIFAR, classes: int = 10, **options: Any) -> Start:
    return Start(network=Network(name=name, options=options, inputs=inputs, classes=classes), seed=seed)


def made(name: str, seed: int = 0, inputs: tuple[int, ...] = CIFAR, classes: int = 10, **options: Any) -> nn.Module:
    return build(start(name, seed, inputs, classes, **options))


def conv_weights(network: nn.Module) -> int:
    return sum(module.weight.numel() for module in network.modules() if isinstance(module, nn.Conv2d))


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def weights(network: nn.Module) -> int:
    return Mask.full(network).size


def layer_sizes(network: nn.Module) -> list[int]:
    return list(Mask.full(network).sizes.values())


def output_of(network: nn.Module, inputs: tuple[int, ...], examples: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    output: torch.Tensor = network(torch.rand(examples, *inputs, generator=generator))
    return output
