from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing

from tests.support.custom_search import Small, X
from tests.support.networks import Convolutional, TiedWeights
from tests.support.renamed_states import RENAMED, WithExtraState
from tombola.pruning.hold import hold
from tombola.pruning.network_state import load_state, named_tensors, network_state, persistent_tensors
from tombola.pruning.prune_model import prune


@pytest.mark.parametrize("make", [Convolutional, TiedWeights, Small, lambda: nn.LSTM(3, 4)])
def test_names_and_order_are_those_of_an_ordinary_state_dict(make: type[nn.Module]) -> None:
    network = make()
    state = network.state_dict()
    assert [*persistent_tensors(network)] == [*state]
    assert network_state(network).keys() == state.keys() | dict(network.named_buffers()).keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in network_state(network).items() if name in state)


@pytest.mark.parametrize("kind", RENAMED)
def test_names_are_those_of_parameters_and_buffers_whatever_the_state_dict_says(kind: str) -> None:
    network = RENAMED[kind]()
    parameters, buffers = dict(network.named_parameters()), dict(network.named_buffers())
    assert named_tensors(network).keys() == parameters.keys() | buffers.keys()
    assert persistent_tensors(network).keys() == named_tensors(network).keys() - {"calls"}
    network(X)
    other = RENAMED[kind]()
    load_state(other, network_state(network))
    for name, tensor in named_tensors(network).items():
        assert torch.equal(named_tensors(other)[name], tensor), name


def test_a_state_is_a_copy_on_the_cpu() -> None:
    network = nn.Linear(3, 2)
    state = network_state(network)
    with torch.no_grad():
        network.weight.zero_()
    assert state["weight"].any()
    assert not state["weight"].requires_grad


def test_extra_states_that_are_tensors_are_copied_and_loaded() -> None:
    network, other = WithExtraState(), WithExtraState()
    network(X)
    load_state(other, network_state(network))
    assert other.seen == len(X)
    assert "_extra_state" in persistent_tensors(network)


def test_layers_wrapped_in_place_keep_their_names() -> None:
    network = Small()
    before = network_state(network)
    apply_activation_checkpointing(network, check_fn=lambda layer: isinstance(layer, nn.Linear))
    assert network_state(network).keys() != before.keys()
    assert network_state(network, before).keys() == before.keys()
    wrapped = network_state(network)
    assert network_state(network, wrapped).keys() == wrapped.keys()  # a network that was wrapped from the beginning


def test_pruned_weights_of_a_hold_stay_zero() -> None:
    network = TiedWeights()
    state = network_state(network)
    mask = prune(network, 0.5)
    with hold(network, mask):
        load_state(network, state)
    assert network.first.weight is network.second.weight
    for name, kept in mask.items():
        assert torch.equal(network.get_parameter(name), state[name] * kept)
