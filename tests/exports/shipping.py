"""Tickets to ship: small, and trained for a moment on the digits."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn

from tests.conftest import random_mask, tiny
from tombola.experiments.experiment import Experiment
from tombola.pruning.hold import hold
from tombola.pruning.mask import Mask
from tombola.tickets.ticket import Ticket
from tombola.zoo.datasets import prepare
from tombola.zoo.models import build

NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"name": "mlp", "widths": [50, 30]},
    "conv": {"name": "conv-2", "width": 0.2},
    "resnet": {"name": "resnet", "depth": 8, "width": 4},
    "vit": {"name": "vit", "width": 12, "depth": 1, "patch": 4},
}


@cache
def digits_ticket(kind: str = "mlp", density: float = 0.3, steps: int = 60) -> Ticket:
    """A ticket of one of `NETWORKS`, with what `tombola run` notes and exports look at; not to be changed."""
    recipe = tiny(model=NETWORKS[kind])
    dense = Experiment(recipe).dense(0)
    run = dense.masked(random_mask(dense, density))
    network = build(run.start)
    run.mask.apply_(network)
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    train(network, run.mask, *prepare(run.data).train[torch.arange(600)], steps=steps)
    about = {"recipe": recipe.resolved(), "replicate": 0, "level": 1, "run": run.description, "key": run.key}
    return Ticket(run.mask, start, about, network.state_dict(), drawn=run.start)


def train(network: nn.Module, mask: Mask, x: torch.Tensor, y: torch.Tensor, steps: int) -> None:
    """In place, pruned weights held at zero."""
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    with hold(network, mask):
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()
