"""What tests of scores share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tombola.pruning.mask import Mask
from tombola.pruning.scores.inputs import Loss, ScoreInputs, cross_entropy

Batch = tuple[Tensor, Tensor]


def grounds(seed: int = 0, start: dict[str, Tensor] | None = None, **weights: Tensor) -> ScoreInputs:
    """Weights alone, all of them left."""
    mask = Mask({name: torch.ones(weight.shape, dtype=torch.bool) for name, weight in weights.items()})
    return ScoreInputs(weights, mask, seed, None if start is None else lambda: start)


def of_network(network: nn.Module, batches: Sequence[Any] | None = None, loss: Loss = cross_entropy) -> ScoreInputs:
    """A network, all of its weights left, and examples."""
    mask = Mask.full(network)
    parameters = dict(network.named_parameters())
    return ScoreInputs(
        weights={name: parameters[name].detach() for name in mask},
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
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(4, 2, 2, stride=2, groups=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(8, 3),
    ).double()


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (linear, (4,)),
    "convolutional": (convolutional, (2, 4, 4)),
}
"""By name: a small network and the shape of an example."""


def examples(shape: tuple[int, ...], sizes: Sequence[int] = (5, 3)) -> list[Batch]:
    """Batches of these sizes, in three classes."""
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(size, *shape, generator=generator, dtype=torch.float64),
            torch.randint(3, (size,), generator=generator),
        )
        for size in sizes
    ]


def derivative(of: Callable[[], float], weight: Tensor, step: float = 1e-6) -> Tensor:
    """The derivative of `of()` by each entry of `weight`, by central differences."""
    found = torch.zeros_like(weight)
    flat, slots = weight.view(-1), found.view(-1)
    for index in range(len(flat)):
        kept = float(flat[index])
        flat[index] = kept + step
        above = of()
        flat[index] = kept - step
        slots[index] = (above - of()) / (2 * step)
        flat[index] = kept
    return found
