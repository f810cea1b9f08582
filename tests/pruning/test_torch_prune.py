from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from tests.support.errors import raises_input_error
from tests.support.held_networks import assert_pruned, mask_of
from tombola.pruning.hold import held, hold
from tombola.pruning.mask import Mask, prunable
from tombola.pruning.torch_prune import absorb, from_torch, to_torch


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 3)
        self.norm = nn.BatchNorm1d(4)
        self.fc = nn.Linear(16, 5)
        self.output = nn.Linear(5, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.tanh(self.fc(self.norm(self.conv(x)).flatten(1))))


def test_a_mask_to_torch_and_back_is_the_same() -> None:
    network = Network()
    mask = mask_of(network)
    to_torch(network, mask)
    assert prune.is_pruned(network)
    assert torch.equal(network.fc.weight_mask.bool(), mask["fc.weight"])
    assert from_torch(network) == mask
    assert list(from_torch(network)) == list(mask)


def test_absorbing_undoes_the_reparametrisation() -> None:
    network = Network()
    before = copy.deepcopy(network.state_dict())
    mask = mask_of(network)
    to_torch(network, mask)
    x = torch.randn(2, 1, 6)
    outputs = network.eval()(x)
    assert absorb(network) == mask
    assert not prune.is_pruned(network)
    assert list(network.state_dict()) == list(before)
    assert prunable(network) == list(mask)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name] * mask.get(name, 1))
    assert torch.equal(network(x), outputs)
    copy.deepcopy(network)  # raises for a network pruned by torch.nn.utils.prune


def test_an_optimizer_continues_from_torchs_pruning_to_a_hold() -> None:
    network = Network()
    prune.global_unstructured([(network.fc, "weight"), (network.conv, "weight")], prune.L1Unstructured, amount=0.5)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    network(torch.randn(4, 1, 6)).square().sum().backward()
    optimizer.step()
    mask = absorb(network)
    assert mask.count == 12 + 80 + 15 - 46
    hold(network, mask)
    before = network.fc.weight.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.randn(4, 1, 6)).square().sum().backward()
        optimizer.step()
        assert_pruned(network, mask)
    assert not torch.equal(network.fc.weight, before)


def test_layers_that_torch_has_not_pruned_are_full() -> None:
    network = Network()
    assert from_torch(network) == absorb(network) == Mask.full(network)
    prune.ln_structured(network.fc, "weight", 2, n=2, dim=0)
    assert from_torch(network).counts == {"conv.weight": 12, "fc.weight": 48, "output.weight": 15}


def test_weights_pruned_by_torch_before_stay_pruned() -> None:
    network = Network()
    prune.random_unstructured(network.fc, "weight", 10)
    mask = mask_of(Network())
    to_torch(network, mask)
    assert from_torch(network) <= mask
    assert absorb(network).counts["fc.weight"] < mask.counts["fc.weight"]


def test_a_weight_that_layers_share_is_pruned_in_each() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    mask = mask_of(network)
    to_torch(network, mask)
    assert from_torch(network) == mask
    assert torch.equal(network[0].weight, network[1].weight)
    assert absorb(network) == mask
    assert network[0].weight is network[1].weight
    hold(network, mask)


def test_to_torch_removes_a_hold() -> None:
    network = Network()
    mask = mask_of(network)
    hold(network, mask)
    to_torch(network, mask)
    assert held(network) is None
    assert absorb(network) == mask


def test_pruned_biases_are_refused_and_nothing_is_changed() -> None:
    network = Network()
    prune.random_unstructured(network.fc, "weight", 10)
    prune.random_unstructured(network.norm, "bias", 1)
    with raises_input_error("model: norm.bias is pruned"):
        absorb(network)
    assert prune.is_pruned(network.fc)


@pytest.mark.parametrize(
    ("name", "shape", "facts"),
    [
        ("fc.wieght", (5, 16), ["mask", '"fc.wieght"', '"fc.weight"']),
        ("fc.weight", (16, 5), ["mask:", "fc.weight", "(16, 5)", "(5, 16)"]),
    ],
)
def test_a_mask_of_another_network_is_refused(name: str, shape: tuple[int, ...], facts: list[str]) -> None:
    network = Network()
    kept = {"conv.weight": torch.ones(4, 1, 3, dtype=torch.bool), name: torch.ones(shape, dtype=torch.bool)}
    with raises_input_error(*facts):
        to_torch(network, Mask(kept))
    assert not prune.is_pruned(network)


def test_a_weight_with_another_parametrisation_is_refused() -> None:
    with raises_input_error("model:", "computed from other parameters"):
        from_torch(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))))
