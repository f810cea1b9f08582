"""Small tickets to export: of networks trained for a few steps on the digits, and of any network."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.outcomes import random_mask
from tests.support.recipes import tiny
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.exports.artefacts import ExportContext
from tombola.pruning.hold import hold
from tombola.pruning.mask import Mask
from tombola.pruning.prune_model import prune
from tombola.tickets.ticket import Ticket
from tombola.zoo.datasets import prepare
from tombola.zoo.models import build

NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"name": "mlp", "widths": [50, 30]},
    "lenet": {"name": "lenet-300-100"},
    "conv": {"name": "conv-2", "width": 0.2},
    "resnet": {"name": "resnet", "depth": 8, "width": 4},
    "vit": {"name": "vit", "width": 12, "depth": 1, "patch": 4},
}


QUICK_KINDS = ("ticket", "compact", "csr")
"""Kinds of artefacts that are written quickly."""


@cache
def digits_ticket(kind: str = "mlp", density: float = 0.3, steps: int = 60) -> Ticket:
    """A ticket of one of `NETWORKS` with the provenance that exports use; not to be changed."""
    recipe = tiny(model=NETWORKS[kind])
    dense = RecipeExperiment(recipe).dense(0)
    run = dense.masked(random_mask(dense, density))
    network = build(run.start)
    run.mask.apply_(network)
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    (x, y), optimizer = prepare(run.data).train[torch.arange(600)], torch.optim.Adam(network.parameters(), 0.01)
    with hold(network, run.mask):
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()
    about = {"recipe": recipe.resolved(), "replicate": 0, "level": 1, "run": run.description, "key": run.key}
    return Ticket(run.mask, start, about, network.state_dict(), drawn=run.start)


def ticket_of(network: nn.Module, mask: Mask | None = None) -> Ticket:
    """A ticket without provenance: the network as it is, pruned in place by `mask`, or to half of its weights."""
    mask = prune(network, 0.5) if mask is None else mask
    mask.apply_(network)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    return Ticket(mask, state, {}, state)


def digits_network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


@cache
def digits_test() -> tuple[Tensor, Tensor]:
    """The test set."""
    split = prepare(RecipeExperiment(tiny()).dense(0).data)
    return split.test[torch.arange(len(split.test))]


def digits_context(ticket: Ticket, folder: Path, **options: Any) -> ExportContext:
    return ExportContext.of(ticket, ticket.network(), digits_test()[0][:2], folder, **options)


def context_of(network: nn.Module, mask: Mask, folder: Path, example: Tensor) -> ExportContext:
    """For a network as it is, pruned in place."""
    return ExportContext.of(ticket_of(network, mask), network.eval(), example, folder)
