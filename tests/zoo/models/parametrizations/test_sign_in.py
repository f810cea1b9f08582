from __future__ import annotations

import torch
from torch import nn

from tombola.zoo.models.parametrizations.sign_in import SignIn
from tombola.zoo.models.reparametrization import effective_state, original_name, reparametrize, weight_name


def drawn(scale: float = 1.0) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    layer = nn.Linear(6, 4)
    weight = layer.weight.detach().clone()
    return reparametrize(layer, "sign-in", {"weight": {"scale": scale}}), weight


def test_the_product_is_the_weight_and_the_factors_are_balanced() -> None:
    for scale in (0.5, 1.0):
        network, weight = drawn(scale)
        torch.testing.assert_close(effective_state(network)["weight"], weight)
        m, w = network.get_parameter("parametrizations.weight.0.m"), network.get_parameter(original_name("weight"))
        torch.testing.assert_close(m**2 - w**2, torch.full_like(m, scale))
        assert (m > 0).all()


def test_a_pruned_weight_stays_zero() -> None:
    network, _ = drawn()
    with torch.no_grad():
        network.get_parameter(original_name("weight"))[0] = 0
    network(torch.rand(3, 6)).sum().backward()
    assert not effective_state(network)["weight"][0].any()
    gradient = network.get_parameter("parametrizations.weight.0.m").grad
    assert gradient is not None
    assert not gradient[0].any()
    assert gradient[1:].any()


def test_assigning_a_weight_balances_the_factors() -> None:
    network, weight = drawn()
    network.weight = -2 * weight  # type: ignore[assignment]
    torch.testing.assert_close(effective_state(network)["weight"], -2 * weight)
    m = network.get_parameter("parametrizations.weight.0.m")
    torch.testing.assert_close(m**2 - (2 * weight / m) ** 2, torch.ones_like(m))


def test_names_of_weights_and_of_their_originals() -> None:
    for name in ("weight", "fc1.weight", "block.0.conv.weight"):
        assert weight_name(original_name(name)) == name
        assert weight_name(name) == name
    assert SignIn(torch.zeros(2)).m.tolist() == [1, 1]
