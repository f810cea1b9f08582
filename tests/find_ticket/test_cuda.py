"""find_ticket with the user's own functions on a CUDA device: that of this machine, or a pretended one."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from tombola import find_ticket

X = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
Y = torch.arange(64) % 4


def make() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4)).cuda()


def train(network: nn.Module) -> None:
    x, y = X.cuda(), Y.cuda()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        functional.cross_entropy(network(x), y).backward()
        optimizer.step()


def evaluate(network: nn.Module) -> dict[str, float]:
    assert next(network.parameters()).device.type == "cuda"
    return {"accuracy": (network(X.cuda()).argmax(1) == Y.cuda()).float().mean().item()}


@pytest.mark.usefixtures("cuda")
def test_a_ticket_is_found_on_the_users_device() -> None:
    ticket, levels = find_ticket(
        make,
        train,
        evaluate=evaluate,
        levels=2,
        score="snip",
        data=[(X.cuda(), Y.cuda())],
        controls={"random": 1, "reinit": 1},
        progress=False,
    )
    assert ticket.mask.density < 1
    assert levels
