"""Inputs of scores, and derivatives by finite differences."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tombola.pruning.mask import Mask
from tombola.pruning.scores.inputs import Loss, ScoreInputs, cross_entropy

Batch = tuple[Tensor, Tensor]


def inputs(seed: int = 0, start: dict[str, Tensor] | None = None, **weights: Tensor) -> ScoreInputs:
    """Inputs of weights alone, all of them kept."""
    mask = Mask({name: torch.ones(weight.shape, dtype=torch.bool) for name, weight in weights.items()})
    return ScoreInputs(weights, mask, seed, None if start is None else lambda: start)


def of_network(network: nn.Module, batches: Sequence[Any] | None = None, loss: Loss = cross_entropy) -> ScoreInputs:
    """Inputs of a network, all of its weights kept, and of examples."""
    mask = Mask.full(network)
    return ScoreInputs(
        weights={name: network.get_parameter(name).detach() for name in mask},
        mask=mask,
        _network=lambda: copy.deepcopy(network),
        _batches=None if batches is None else lambda: batches,
        loss=loss,
    )


def linear(seed: int = 0) -> nn.Module:
    """Two linear layers, smooth, in float64."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)).double()


def convolutional(seed: int = 0) -> nn.Module:
    """A convolution, one in groups, and a linear layer; smooth, in float64."""
    torch.manual_seed(seed)
    first, second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 2, 2, stride=2, groups=2)
    return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)).double()


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (linear, (4,)),
    "convolutional": (convolutional, (2, 4, 4)),
}
"""By name: a small network and the shape of an example."""


def examples(shape: tuple[int, ...], sizes: Sequence[int] = (5, 3)) -> list[Batch]:
    """Batches of these sizes, in three classes."""
    source = torch.Generator().manual_seed(1)
    return [
        (torch.randn(n, *shape, generator=source, dtype=torch.float64), torch.randint(3, (n,), generator=source))
        for n in sizes
    ]


def derivative(function: Callable[[], float], weight: Tensor, step: float = 1e-6) -> Tensor:
    """The derivative of `function()` by each entry of `weight`, by central differences."""
    found = torch.zeros_like(weight)
    flat, slots = weight.view(-1), found.view(-1)
    for index in range(len(flat)):
        kept = float(flat[index])
        flat[index] = kept + step
        above = function()
        flat[index] = kept - step
        slots[index] = (above - function()) / (2 * step)
        flat[index] = kept
    return found
