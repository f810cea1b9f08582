"""Pruning on a CUDA device: every layer of a small network holds or is scored there."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.cuda_device import forbid_waits
from tests.support.held_networks import assert_pruned, held_network, mask_of
from tombola.pruning.hold import held
from tombola.pruning.mask import Mask
from tombola.pruning.prune_model import prune

PATTERNS = ("2:4",)
"""Structures that have their own density."""


class Small(nn.Module):
    """A convolution with batch norm, and two linear layers, for images of 8 x 8 pixels in four classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.hidden = nn.Linear(8 * 36, 16)
        self.output = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.conv(x)))
        logits: Tensor = self.output(functional.relu(self.hidden(x.flatten(1))))
        return logits


def small() -> Small:
    torch.manual_seed(0)
    return Small()


def batches(device: str) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x = [torch.randn(6, 1, 8, 8, generator=generator) for _ in range(2)]
    return [(inputs.to(device), (torch.arange(6) % 4).to(device)) for inputs in x]


def pruned_on(device: str, start_on: str, score: str, structure: str = "weights", scope: str = "layer") -> Mask:
    """The mask of a network on `device`, with its initial weights on `start_on`."""
    network = small().to(device)
    start = {name: (2 * value.cpu() + 1).to(start_on) for name, value in network.state_dict().items()}
    pattern = structure in PATTERNS
    mask = prune(
        network,
        None if pattern else 0.5,
        score=score,
        structure=structure,
        scope=scope,
        data=batches(device),
        start=start,
        rounds=2,
        leave_out=["conv"] if pattern else [],
    )
    assert {parameter.device.type for parameter in network.parameters()} == {device}
    assert_pruned(network.cpu(), mask)
    return mask


def check_hold(options: dict[str, Any]) -> None:
    """Training a held network needs no wait, and its pruned weights stay zero on every device it is moved to."""
    network, mask = held_network()
    network.cuda()
    network(torch.randn(10, 6, device="cuda")).sum().backward()  # the masks are moved to the device
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1, **options)
    x = torch.randn(10, 6, device="cuda")
    for _ in range(2):
        optimizer.step()
        with forbid_waits():
            for _ in range(3):
                optimizer.zero_grad()
                network(x).square().sum().backward()
                optimizer.step()
        assert_pruned(network.cpu(), mask)
        network.zero_grad()
        network(x.cpu()).sum().backward()
        network.cuda()
        network.zero_grad()
        network(x).sum().backward()


def check_copies_of_held() -> None:
    """A copy of a held network on the device is held, also after it has loaded dense weights."""
    network, mask = held_network()
    network.cuda()
    twin = copy.deepcopy(network)
    assert held(twin) == mask == mask_of(network.cpu())
    assert {parameter.device.type for parameter in twin.parameters()} == {"cuda"}
    twin.load_state_dict({name: torch.ones_like(value) for name, value in twin.state_dict().items()})
    assert_pruned(twin.cpu(), mask)
