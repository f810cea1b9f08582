"""Small networks with masks, and trainings that check that pruned weights stay zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from tombola.pruning.hold import hold
from tombola.pruning.mask import Mask


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def mask_of(network: nn.Module, density: float = 0.4, seed: int = 0) -> Mask:
    generator = torch.Generator().manual_seed(seed)
    return Mask({name: torch.rand(t.shape, generator=generator) < density for name, t in Mask.full(network).items()})


def held_network(seed: int = 0) -> tuple[nn.Sequential, Mask]:
    """A held network and its mask."""
    made = network(seed)
    mask = mask_of(made)
    hold(made, mask)
    return made, mask


def assert_pruned(network: nn.Module, mask: Mask) -> None:
    parameters = {name.removeprefix("module."): p for name, p in network.named_parameters()}
    for name, kept in mask.items():
        assert (parameters[name][~kept] == 0).all(), name


def backward(network: nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(10, 6, generator=generator), torch.randint(0, 3, (10,), generator=generator)
    functional.cross_entropy(network(x), y).backward()


def train(network: nn.Module, mask: Mask, optimizer: Optimizer | None = None, steps: int = 5) -> None:
    """Train some steps. Asserts after each that the pruned weights and their gradients are zero."""
    optimizer = optimizer or torch.optim.AdamW(network.parameters(), lr=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        backward(network, step)
        for name, parameter in network.named_parameters():
            if name in mask:
                assert parameter.grad is not None
                assert (parameter.grad[~mask[name]] == 0).all()
        optimizer.step()
        assert_pruned(network, mask)


class Shared(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.output = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.tanh(self.second(torch.tanh(self.first(x)))))


def convolutional() -> nn.Module:
    conv, norm = nn.Conv1d(1, 3, 3, bias=False), nn.BatchNorm1d(3)
    return nn.Sequential(nn.Unflatten(1, (1, 6)), conv, norm, nn.ReLU(), nn.Flatten(), nn.Linear(12, 3))
