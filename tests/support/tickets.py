"""Small tickets, and those of experiments in which every ticket wins; ways to falsify them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.support.outcomes import random_mask
from tests.support.recipes import tiny
from tombola._run_experiment import run_experiment
from tombola.pruning.mask import Mask, State
from tombola.runs import sparse_state
from tombola.runs.run import Run
from tombola.tickets.ticket import Ticket
from tombola.utils.files import write_tensors
from tombola.zoo.models import build, describe
from tombola.zoo.models.description import Trained

EASY: dict[str, Any] = {
    "replicates": 5,
    "data": {"name": "digits", "validation": 300},
    "training": {"optimizer": "sgd", "lr": 0.2, "batch_size": 60, "length": "500it", "evaluate_every": "20it"},
    "search": {"levels": 1, "rate": 0.85, "output_rate": 0.3},
    "controls": {},
    "verdict": {"margin": 0.99, "stop_margin": 99.0, "max_density": 0.99},
}
"""Every ticket wins, by margins that no training exceeds."""


def untrained_ticket(run: Run) -> Ticket:
    """A random mask of a fifth of the weights. The ticket does not say how its weights are drawn."""
    network = build(run.start)
    mask = random_mask(run, 0.2)
    mask.apply_(network)
    return Ticket(mask, network.state_dict(), {"recipe": {"name": "tiny"}})


def trained_ticket(run: Run) -> Ticket:
    """The same with its description, and random changes of its weights as trained weights."""
    untrained = untrained_ticket(run)
    generator = torch.Generator().manual_seed(7)
    trained = {n: t + torch.randn(t.shape, generator=generator) / 10 for n, t in untrained.start.items()}
    for name, kept in untrained.mask.items():
        trained[name].masked_fill_(~kept, 0)
    return Ticket(untrained.mask, untrained.start, {"run": run.description}, trained, drawn=run.start)


def custom_network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def undrawable_tickets(run: Run) -> dict[str, Ticket]:
    """Tickets whose initial weights can be stored only by value."""
    ticket = trained_ticket(run)
    rewound = run.start.model_copy(update={"trained": Trained(run="0" * 32)})
    imported = describe(f"{__name__}:custom_network", {}, (6,), 2)
    network = custom_network()
    return {
        "without a description": Ticket(ticket.mask, ticket.start),
        "rewound": Ticket(ticket.mask, ticket.start, drawn=rewound),
        "of another seed": Ticket(ticket.mask, ticket.start, drawn=run.reinitialised(8).start),
        "by import path": Ticket(
            Mask.full(network), network.state_dict(), drawn=run.start.model_copy(update={"network": imported})
        ),
    }


def saved_and_loaded(ticket: Ticket, path: Path, **options: Any) -> Ticket:
    ticket.save(path, **options)
    return Ticket.load(path)


def write_version_1(ticket: Ticket, path: Path) -> None:
    """The first file format."""
    about = {"format": 1, "provenance": ticket.provenance}
    write_tensors(path, sparse_state.pack(ticket.start, ticket.mask), about)


def assert_same_state(one: State | None, other: State | None) -> None:
    assert one is not None
    assert other is not None
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def experiment_ticket(folder: Path, **changes: Any) -> Path:
    """The ticket file of an experiment."""
    run_experiment(tiny(**EASY | changes), folder / "out", store=folder / "store")
    return folder / "out" / "ticket.safetensors"


def with_provenance(file: Path, folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy of a ticket file whose provenance is changed in place, or replaced by what `change` returns."""
    ticket, path = Ticket.load(file), folder / "changed.safetensors"
    provenance = copy.deepcopy(ticket.provenance)
    new = change(provenance)
    provenance = provenance if new is None else new
    Ticket(ticket.mask, ticket.start, provenance, ticket.trained, drawn=ticket.drawn).save(path)
    return path


def set_in(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one value of the provenance."""

    def change(provenance: dict[str, Any]) -> None:
        section = provenance
        for name in path[:-1]:
            section = section[name]
        section[path[-1]] = value

    return change
