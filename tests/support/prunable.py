"""Networks to prune, made of the shapes of their weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from tombola.pruning.prunable_network import PrunableNetwork


def prunable_network(shapes: Mapping[str, tuple[int, ...]]) -> PrunableNetwork:
    """A sequence of linear layers, by the names of weights, which have these shapes. It cannot compute anything."""
    network = nn.Sequential()
    for name, shape in shapes.items():
        layer: nn.Module = nn.Linear(1, 1) if len(shape) < 4 else nn.Conv2d(1, 1, 1)
        layer.weight = nn.Parameter(torch.zeros(shape))
        if name == "weight":
            return PrunableNetwork(layer)
        *path, last = name.removesuffix(".weight").split(".")
        parent = network
        for part in path:
            if part not in parent._modules:
                parent.add_module(part, nn.Sequential())
            parent = parent.get_submodule(part)
        parent.add_module(last, layer)
    return PrunableNetwork(network)
