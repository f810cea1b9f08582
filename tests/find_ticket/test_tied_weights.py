"""Tickets of networks whose layers share weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.support.prunable_networks import Transformer
from tombola import Ticket, find_ticket
from tombola.pruning.network_state import network_state


def tied_linear() -> nn.Module:
    network = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    network[2].weight = network[0].weight
    return network


def train(network: nn.Module) -> float:
    inputs = torch.arange(8).view(2, 4) if isinstance(network, Transformer) else torch.randn(2, 8)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    loss = functional.mse_loss(network(inputs), torch.tensor(1.0).expand_as(network(inputs)))
    loss.backward()
    optimizer.step()
    return float(loss.detach())


@pytest.mark.parametrize(
    ("make", "include", "name"), [(tied_linear, (), "0.weight"), (Transformer, ("head",), "embedding.weight")]
)
def test_a_ticket_is_pruned_under_every_name_of_a_tied_weight(
    make: Callable[[], nn.Module], include: tuple[str, ...], name: str, tmp_path: Path
) -> None:
    ticket, _ = find_ticket(make, train, levels=1, rate=0.5, include=include)
    ticket.save(tmp_path / "ticket.safetensors")
    for each in (ticket, Ticket.load(tmp_path / "ticket.safetensors")):
        for trained in (False, True):
            network = each.into(make(), trained=trained)
            assert int(network.get_parameter(name).count_nonzero()) == ticket.mask.counts[name]
            assert network_state(network).keys() == each.start.keys()


def test_a_ticket_with_a_dense_alias_is_pruned_when_it_is_loaded() -> None:
    ticket, _ = find_ticket(tied_linear, train, levels=1, rate=0.5)
    dense = ticket.start | {"2.weight": torch.ones(8, 8)}
    network = Ticket(ticket.mask, dense).into(tied_linear())
    assert int(network.get_parameter("0.weight").count_nonzero()) == ticket.mask.counts["0.weight"]
