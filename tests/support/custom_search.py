"""A small classifier and its training, for searches; what each training began with."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

X = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] * X[:, 1] > 0).long()


class Small(nn.Module):
    """With all state that must be restored: batch norm, and a buffer outside the state_dict."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(6, 20)
        self.norm = nn.BatchNorm1d(20)
        self.output = nn.Linear(20, 2)
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        logits: Tensor = self.output(self.norm(self.fc1(x)).relu())
        return logits


def small(seed: int = 0) -> Small:
    torch.manual_seed(seed)
    return Small()


def train(model: nn.Module, steps: int = 30, begin: int = 0) -> None:
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(begin, steps):
        batch = torch.randint(len(X), (32,))
        optimizer.zero_grad()
        functional.cross_entropy(model(X[batch]), Y[batch]).backward()
        optimizer.step()


def evaluate(model: nn.Module) -> float:
    assert not model.training
    return float((model(X).argmax(1) == Y).float().mean())


def draw() -> float:
    """A number from the global random states."""
    return random.random() + float(np.random.rand()) + float(torch.rand(()))  # noqa: NPY002


class Recorder:
    """Trains, and records the initial state and a random number of each training."""

    def __init__(self) -> None:
        self.train: Callable[[nn.Module], None] = train
        self.starts: list[dict[str, Tensor]] = []
        self.draws: list[float] = []

    def __call__(self, model: nn.Module) -> None:
        self.draws.append(draw())
        self.starts.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        self.train(model)
