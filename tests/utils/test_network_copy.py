from __future__ import annotations

import copy
import io
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from tests.support.errors import raises_input_error
from tests.support.user_networks import Features
from tombola import compact, find_ticket, hold, prune, sparse
from tombola.pruning.hold import held
from tombola.pruning.torch_prune import absorb
from tombola.utils.network_copy import copy_network

X = torch.randn(8, 10, generator=torch.Generator().manual_seed(0))
BATCHES = [(X, torch.arange(8) % 2)]


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 2))


def search(network: nn.Module) -> Any:
    return find_ticket(network, train=lambda *_: None, evaluate=lambda *_: 0.5)


USES: dict[str, Callable[[nn.Module], Any]] = {
    "copy": copy_network,
    "compact": lambda network: compact(network, X),
    "sparse": lambda network: sparse(network, X),
    "snip": lambda network: prune(network, 0.5, score="snip", data=BATCHES),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_feature_maps_are_copied_without_their_graph(use: Callable[[nn.Module], Any]) -> None:
    network = Features()
    network(X)
    kept = network.features
    use(network)
    assert network.features is kept
    assert kept is not None
    assert not kept.is_leaf
    assert len(network.all_features) == 1


def test_copies_of_feature_maps_are_independent_and_still_shared() -> None:
    network = Features()
    network(X)
    copied = copy_network(network)
    assert copied.features is copied.all_features[0]
    assert copied.features is not None
    assert not copied.features.requires_grad
    assert torch.equal(copied.features, network.all_features[0])
    assert copied.hidden.weight is not network.hidden.weight
    copied.features.zero_()
    assert network.all_features[0].any()


def generated() -> Iterator[int]:
    yield 1


UNCOPYABLE: dict[str, Callable[[], Any]] = {
    "lock": threading.Lock,
    "file": lambda: io.TextIOWrapper(io.BytesIO()),
    "generator": generated,
    "nested": lambda: {"of": [threading.Lock()]},
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("make", UNCOPYABLE.values(), ids=UNCOPYABLE)
def test_attributes_that_cannot_be_copied_are_named(make: Callable[[], Any], use: Callable[[nn.Module], Any]) -> None:
    network = mlp()
    network[1].attribute = make()
    with raises_input_error("model", "1.attribute"):
        use(network)


def test_a_search_of_a_network_that_cannot_be_copied_advises_a_function() -> None:
    network = mlp()
    network.lock = threading.Lock()
    with raises_input_error("model", "lock", "function"):
        search(network)


@pytest.mark.parametrize("use", [copy_network, USES["compact"], USES["sparse"], search])
def test_networks_pruned_by_torch_are_referred_to_absorb(use: Callable[[nn.Module], Any]) -> None:
    network = mlp()
    torch_prune.l1_unstructured(network[2], "weight", 0.5)  # type: ignore[no-untyped-call]
    with raises_input_error("2.weight", f"{absorb.__module__}.{absorb.__name__}"):
        use(network)
    absorb(network)
    copy_network(network)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_weight_and_spectral_norm_are_copied() -> None:
    first, last = nn.utils.weight_norm(nn.Linear(10, 6)), nn.utils.spectral_norm(nn.Linear(6, 2))
    network = nn.Sequential(first, nn.ReLU(), last)
    network(X)
    copied = copy_network(network)
    assert torch.equal(copied.eval()(X), network.eval()(X))
    with torch.no_grad():
        copied[0].weight_g.zero_()  # type: ignore[union-attr, operator]
        assert not torch.equal(copied(X), network(X))


def test_weights_without_values_are_named() -> None:
    with raises_input_error("1.weight", "meta"):
        copy_network(nn.Sequential(nn.ReLU(), nn.Linear(2, 2, device="meta")))
    with raises_input_error("0.weight", "shape"):
        copy_network(nn.Sequential(nn.LazyLinear(2)))


def test_copies_are_held_too() -> None:
    network = mlp()
    mask = prune(network, 0.5)
    hold(network, mask)
    assert held(copy_network(network)) == mask


def test_copying_elsewhere_is_unchanged() -> None:
    network = Features()
    network(X)
    copy_network(network)
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(network)
