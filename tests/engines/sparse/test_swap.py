from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.engines.helpers import Convolutional
from tombola.engines.sparse.modules import SparseTrainingLayer
from tombola.engines.sparse.speeds import Speeds
from tombola.engines.sparse.swap import swap
from tombola.pruning.mask import Mask

X = torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(0))


class Always(Speeds):
    def sparse_is_faster(self, layer: nn.Module, inputs: tuple[int, ...], density: float) -> bool:  # noqa: ARG002
        return density < 1


SPEEDS = Always(Path("nowhere"))


def half(network: nn.Module) -> Mask:
    torch.manual_seed(0)
    mask = Mask({name: torch.rand(kept.shape) < 0.5 for name, kept in Mask.full(network).items()})
    mask.apply_(network)
    return mask


def test_layers_are_swapped_and_the_state_is_the_modules_own() -> None:
    network = Convolutional(dropout=0.0)
    mask = half(network)
    before, keys = network.state_dict(), list(network.state_dict())
    expected = network.eval()(X)
    swapped, dense = swap(network.train(), mask, X, SPEEDS)
    assert not dense
    assert set(swapped.layers) == {"conv", "output"}
    assert network.training
    assert isinstance(network.conv, SparseTrainingLayer)
    assert sum(p.numel() for p in network.parameters()) == mask.count + 10 + 8  # biases, batch norm
    torch.testing.assert_close(network.eval()(X), expected)
    state = swapped.state()
    assert list(state) == keys
    assert all(torch.equal(state[name], before[name]) for name in keys)
    with torch.no_grad():
        network.get_parameter("conv.values").fill_(3.0)
    swapped.undo()
    assert type(network.conv) is nn.Conv2d
    assert torch.equal(network.conv.weight, 3.0 * mask["conv.weight"])
    assert list(network.state_dict()) == keys


def test_each_layer_that_stays_dense_says_why() -> None:
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.circular = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")
            self.line = nn.Conv1d(8, 8, 1)
            self.hooked = nn.Linear(8, 8)
            self.hooked.register_forward_hook(lambda *_: None)
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
            self.second.weight = self.first.weight
            self.frozen = nn.Linear(8, 8)
            self.frozen.bias.requires_grad_(False)
            self.unused = nn.Linear(8, 8)
            self.full = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.line(self.circular(x[:, None])[:, 0])
            return self.full(self.frozen(self.second(self.first(self.hooked(x)))))

    network = Many()
    mask = half(network)
    mask = Mask({**mask, "full.weight": torch.ones(8, 8, dtype=torch.bool)})
    swapped, dense = swap(network, mask, X, SPEEDS)
    assert not swapped.layers
    assert dense == {
        "circular": 'its padding mode is "circular"',
        "line": "it is a Conv1d",
        "hooked": "it has hooks",
        "first": "it shares parameters with another layer",
        "frozen": "some of its parameters are frozen",
        "unused": "the network does not call it",
        "full": "dense is faster with 100.0% of its weights",
    }


@pytest.mark.parametrize("when", ["always", "wrongly", "in training"])
def test_a_network_that_looks_into_its_layers_keeps_them(when: str) -> None:
    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            if when == "in training" and not self.training:
                return self.inner(x)
            if when == "wrongly":  # goes on working, and computes something else
                return self.inner(x) + getattr(self.inner, "weight", torch.zeros(8, 8)).sum()
            return self.inner(x) + self.inner.weight.sum()

    network = Looking()
    mask = half(network)
    layer, before = network.inner, network.inner.weight.clone()
    swapped, dense = swap(network, mask, X, SPEEDS)
    assert "does not work with sparse layers" in dense["inner"]
    assert not swapped.layers
    assert network.inner is layer
    assert torch.equal(network.inner.weight, before)
