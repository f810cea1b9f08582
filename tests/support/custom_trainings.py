"""Training functions whose bits depend on all that an evaluation could disturb."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.custom_search import X, Y, draw

STEPS = 12
Training = Callable[[nn.Module], None]


def loss(network: nn.Module) -> Tensor:
    """On a batch that the global random states draw."""
    batch = torch.randint(len(X), (16,))
    return functional.cross_entropy(network(X[batch]).float(), Y[batch]) + 0 * draw()


def adam(network: nn.Module) -> None:
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(network).backward()
        optimizer.step()


def scheduled(network: nn.Module) -> None:
    """Momentum, weight decay, a schedule, and gradients that are never None."""
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=False)
        loss(network).backward()
        optimizer.step()
        schedule.step()


def accumulated(network: nn.Module) -> None:
    """Gradients are accumulated over batches, and keep a part of those of the step before."""
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for _ in range(STEPS):
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter.grad *= 0.5
        for _ in range(2):
            loss(network).backward()
        optimizer.step()


def alternating(network: Any) -> None:
    """Two optimizers with different parameters."""
    optimizers = [torch.optim.Adam(layer.parameters(), 0.01) for layer in (network.first, network.output)]
    for _ in range(STEPS):
        for optimizer in optimizers:
            optimizer.zero_grad()
            loss(network).backward()
            optimizer.step()


def scaled(network: nn.Module) -> None:
    """Mixed precision around the whole loop, with scaled gradients."""
    optimizer, scaler = torch.optim.Adam(network.parameters(), 0.01), torch.amp.GradScaler("cpu")
    for _ in range(STEPS):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            optimizer.zero_grad()
            scaler.scale(loss(network)).backward()
            scaler.step(optimizer)
            scaler.update()


def lbfgs(network: nn.Module) -> None:
    optimizer = torch.optim.LBFGS(network.parameters(), 0.1, max_iter=2)

    def closure() -> Tensor:
        optimizer.zero_grad()
        found = loss(network)
        found.backward()
        return found

    for _ in range(STEPS):
        optimizer.step(closure)


TRAININGS: list[Training] = [adam, scheduled, accumulated, alternating, scaled, lbfgs]
