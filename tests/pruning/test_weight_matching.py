from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.errors import raises_input_error
from tombola.pruning.exchangeable_units import ExchangeableUnits
from tombola.pruning.mask import Mask
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.pruning.weight_matching import match_weights
from tombola.zoo.models import build
from tombola.zoo.models.description import Network, Start

NETWORKS: list[tuple[str, tuple[int, ...], dict[str, Any], int]] = [
    ("mlp", (8, 8), {"widths": [20, 10]}, 2),
    ("conv-2", (3, 8, 8), {"width": 0.1}, 4),  # two convolutions, flattened, and two linear layers
    ("resnet", (3, 8, 8), {"depth": 8, "width": 4}, 6),  # an inner group and a stream in each of three stages
    ("resnet", (3, 8, 8), {"depth": 8, "width": 4, "shortcut": "identity"}, 6),  # streams that are padded with zeros
]


def drawn(name: str, inputs: tuple[int, ...], options: dict[str, Any], seed: int = 1) -> nn.Module:
    """A network whose biases, scales and statistics are not all alike."""
    network = build(Start(network=Network(name=name, options=options, inputs=inputs, classes=10), seed=seed)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                tensor.add_(0.3 * torch.rand(tensor.shape, generator=generator))
    return network


def units_of(network: nn.Module, inputs: tuple[int, ...]) -> ExchangeableUnits:
    return ExchangeableUnits.of(PrunableNetwork(network, given_example=torch.randn(2, *inputs)))


@pytest.mark.parametrize(("name", "inputs", "options", "groups"), NETWORKS)
def test_a_known_permutation_is_found_and_keeps_the_function(
    name: str, inputs: tuple[int, ...], options: dict[str, Any], groups: int
) -> None:
    network, other = drawn(name, inputs, options), drawn(name, inputs, options)
    units = units_of(network, inputs)
    assert len(units.groups) == groups
    known = units.random_permutation(3)
    state = network.state_dict()
    other.load_state_dict(known.align(state))
    assert not all(torch.equal(value, state[name]) for name, value in other.state_dict().items())
    example = torch.randn(5, *inputs)
    with torch.no_grad():
        before, after = network(example), other(example)
    assert torch.allclose(before, after, rtol=0, atol=1e-4 * float(before.abs().max()))

    found = match_weights(units, state, other.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(found.orders, known.inverse.orders, strict=True))
    aligned = found.align(other.state_dict())
    assert all(torch.equal(aligned[name], value) for name, value in state.items())


@pytest.mark.parametrize(("name", "inputs", "options", "groups"), NETWORKS)
def test_a_mask_follows_the_weights_that_it_belongs_to(
    name: str, inputs: tuple[int, ...], options: dict[str, Any], groups: int
) -> None:
    network = drawn(name, inputs, options)
    known = units_of(network, inputs).random_permutation(groups)
    state = network.state_dict()
    mask = Mask({name: state[name] > 0.2 for name in Mask.full(network)})
    carried, second = known.carry_over(mask), known.inverse.align(state)
    assert carried != mask
    assert carried.counts == mask.counts
    assert carried == Mask({name: second[name] > 0.2 for name in mask})
    assert known.inverse.carry_over(carried) == mask


def test_matched_networks_are_nearer_to_each_other() -> None:
    networks = [drawn("mlp", (8, 8), {"widths": [20, 10]}, seed) for seed in (1, 2)]
    first, second = (network.state_dict() for network in networks)
    aligned = match_weights(units_of(networks[0], (8, 8)), first, second).align(second)

    def product(state: dict[str, Tensor]) -> float:
        return sum(float((first[name] * value).sum()) for name, value in state.items())

    assert product(aligned) > product(second)


class Ordered(nn.Module):
    """A network in which the order of hidden units matters, if `position` does."""

    def __init__(self, position: bool) -> None:
        super().__init__()
        self.hidden, self.output = nn.Linear(6, 4), nn.Linear(4, 2)
        self.position = torch.arange(4.0) if position else None

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.hidden(x))
        return self.output(hidden if self.position is None else hidden * self.position)  # type: ignore[no-any-return]


def test_networks_whose_units_cannot_be_permuted_are_refused() -> None:
    example = torch.randn(2, 6)
    free, ordered = (PrunableNetwork(Ordered(position), given_example=example) for position in (False, True))
    assert [group.size for group in ExchangeableUnits.of(free).groups] == [4]
    with raises_input_error("controls.permuted", "no hidden units"):
        ExchangeableUnits.of(ordered)
    vars(ordered)["coupling"] = free.coupling  # as if the constant had been overlooked
    with raises_input_error("controls.permuted", "order"):
        ExchangeableUnits.of(ordered)
