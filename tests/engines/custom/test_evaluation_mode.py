from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.support.custom_runs import Noisy
from tests.support.custom_search import draw
from tests.support.training import same_state
from tombola.engines.custom.evaluation_mode import evaluation_mode
from tombola.pruning.network_state import network_state

X = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))


def noisy() -> Any:
    torch.manual_seed(0)
    network = Noisy()
    network(X).sum().backward()
    return network


def modes(network: nn.Module) -> list[bool]:
    return [module.training for module in network.modules()]


def test_the_network_is_evaluated_without_gradients_and_left_in_its_modes() -> None:
    network = noisy()
    before = modes(network)
    assert True in before
    assert False in before
    with evaluation_mode(network, network_state(network), 1):
        assert not any(modes(network))
        assert not network(X).requires_grad
    assert modes(network) == before
    assert network(X).requires_grad


def test_gradients_are_kept() -> None:
    network = noisy()
    tensors = [parameter.grad for parameter in network.parameters()]
    values = [None if gradient is None else gradient.clone() for gradient in tensors]
    with evaluation_mode(network, network_state(network), 1), torch.enable_grad():
        network(X).sum().backward()
        network.zero_grad(set_to_none=False)
    for parameter, gradient, value in zip(network.parameters(), tensors, values, strict=True):
        assert parameter.grad is gradient
        assert value is not None
        assert gradient is not None
        assert torch.equal(gradient, value)


def test_random_states_start_at_the_seed_and_are_kept() -> None:
    network = noisy()
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    expected = [draw(), draw()]
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    seen, within = [draw()], []
    for seed in (1, 1, 2):
        with evaluation_mode(network, network_state(network), seed):
            within.append(draw())
    assert [*seen, draw()] == expected
    assert within[0] == within[1] != within[2]


@torch.no_grad()
def careless(network: Any) -> None:
    network.train()
    network(X)  # running statistics
    network.first.weight.zero_()
    network.output.bias.data = torch.ones(2)
    network.calls = network.calls + 7


def test_weights_and_buffers_are_kept() -> None:
    network = noisy()
    before, tensors = network_state(network), [*network.parameters()]
    with evaluation_mode(network, before, 1):
        careless(network)
    assert same_state(network_state(network), before)
    assert all(one is other for one, other in zip(network.parameters(), tensors, strict=True))


def test_an_evaluation_that_changes_nothing_does_not_touch_the_weights() -> None:
    """It may come between a forward and a backward pass."""
    network = noisy()
    hidden = network.second(network.first(X).relu())
    with evaluation_mode(network, network_state(network), 1):
        network(X)
    hidden.sum().backward()
    versions = [parameter._version for parameter in network.parameters()]
    with evaluation_mode(network, network_state(network), 1):
        network(X)
    assert [parameter._version for parameter in network.parameters()] == versions


def test_modes_gradients_and_random_states_are_kept_after_an_error() -> None:
    network = noisy()
    before, state = modes(network), torch.get_rng_state()
    with pytest.raises(KeyError), evaluation_mode(network, network_state(network), 1):
        raise {}[torch.rand(3)]
    assert modes(network) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_autocast_of_the_training_ends_at_the_evaluation() -> None:
    layer = nn.Linear(6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(X).dtype == torch.bfloat16
        with evaluation_mode(layer, network_state(layer), 1):
            assert layer(X).dtype == torch.float32
        assert layer(X).dtype == torch.bfloat16


def test_an_evaluation_with_autocast_shares_no_casts_with_the_training() -> None:
    layer = nn.Linear(6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(X)
        with torch.no_grad():
            layer.weight.zero_()
            layer.bias.zero_()
        with evaluation_mode(layer, network_state(layer), 1), torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(X).dtype == torch.bfloat16
            assert not layer(X).any()  # not the weights before, which the training has cast
        functional.mse_loss(layer(X), X).backward()
    assert layer.weight.grad is not None


class Merging(nn.Module):
    """Changes more than flags with its mode, as low-rank adapters do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.merged = nn.Linear(6, 6), False

    def train(self, mode: bool = True) -> Merging:
        self.merged = not mode
        return super().train(mode)


def test_a_network_with_its_own_modes_is_told_them() -> None:
    network = Merging()
    with evaluation_mode(network, network_state(network), 1):
        assert network.merged
    assert not network.merged
