from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from tombola.errors import InputError
from tombola.mask import Mask
from tombola.run import Network, Start
from tombola.zoo.networks import NETWORKS, build, describe
from tombola.zoo.networks.mlp import mlp


def start(seed: int = 0, name: str = "mlp", **options: object) -> Start:
    return Start(network=Network(name=name, options=options, inputs=(28, 28), classes=10), seed=seed)


def test_lenet_300_100_has_266_200_weights() -> None:
    """Frankle & Carbin 2019, figure 2."""
    network = build(start(name="lenet-300-100"))
    assert Mask.full(network).size == 266_200
    assert sum(p.numel() for p in network.parameters()) == 266_200 + 410
    assert network(torch.zeros(3, 28, 28)).shape == (3, 10)


@pytest.mark.parametrize("widths", [[], [7], [20, 30, 40]])
def test_mlps_of_any_widths(widths: list[int]) -> None:
    network = mlp((5, 4), 3, widths)
    dims = [20, *widths, 3]
    assert list(Mask.full(network).sizes.values()) == [a * b for a, b in pairwise(dims)]
    assert list(Mask.full(network)) == [*(f"fc{i + 1}.weight" for i in range(len(widths))), "output.weight"]


@pytest.mark.parametrize(
    ("init", "spread"),
    [("glorot-normal", math.sqrt(2 / (784 + 300))), ("kaiming-normal", math.sqrt(2 / 784))],
)
def test_initial_weights_have_the_distribution_they_should(init: str, spread: float) -> None:
    weight = build(start(name="lenet-300-100", init=init)).get_parameter("fc1.weight")
    assert weight.mean().item() == pytest.approx(0, abs=spread / 100)
    assert weight.std().item() == pytest.approx(spread, rel=0.01)
    standardised = weight.detach().flatten() / spread
    for threshold, tail in [(1, 0.3173), (2, 0.0455), (3, 0.0027)]:  # a normal distribution's, not truncated
        assert (standardised.abs() > threshold).double().mean().item() == pytest.approx(tail, rel=0.1)
    assert not build(start(name="lenet-300-100", init=init)).get_parameter("fc1.bias").any()


def test_weights_come_from_the_seed_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = build(start(1, widths=[5])).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again, other = build(start(1, widths=[5])).state_dict(), build(start(2, widths=[5])).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["fc1.weight"], other["fc1.weight"])


def test_dropout_stands_behind_every_hidden_layer() -> None:
    network = build(start(widths=[5, 5], dropout=0.5))
    assert sum(isinstance(module, nn.Dropout) for module in network.modules()) == 2


def test_a_network_of_ones_own_is_built_by_its_import_path() -> None:
    described = describe("torch.nn:Linear", {"in_features": 3, "out_features": 2, "bias": True}, (3,), 2)
    assert "bias" not in described.options  # it is the default
    assert isinstance(build(Start(network=described, seed=0)), nn.Linear)
    with pytest.raises(InputError, match="has changed"):
        build(Start(network=described.model_copy(update={"source": "other"}), seed=0))


def test_initial_weights_never_change() -> None:
    """Golden, up to rounding: a factory's default that changed would change results under the same keys."""
    for name, options, expected in [
        ("lenet-300-100", {}, [0.06660904, -0.07323112, -0.030039]),
        ("mlp", {"widths": [20]}, [0.04229883, -0.00304277, -0.00558164]),
    ]:
        weight = build(start(7, name=name, **options)).get_parameter("fc1.weight")
        assert weight.flatten()[:3].tolist() == pytest.approx(expected, rel=1e-5)


def test_networks_are_listed_by_name() -> None:
    assert set(NETWORKS) == {"lenet-300-100", "mlp"}
