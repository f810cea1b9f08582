"""Which networks are stacks of linear layers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tombola.engines.stacked.stack import Stack, StackLayer, recognise_stack
from tombola.zoo.models.mlp import mlp


def test_an_mlp_of_the_zoo_is_a_stack() -> None:
    stack = recognise_stack(mlp((8, 8), 10, [20, 15], dropout=0.3))
    assert stack == Stack(
        (
            StackLayer("fc1", 64, 20, bias=True, relu=True, dropout=0.3),
            StackLayer("fc2", 20, 15, bias=True, relu=True, dropout=0.3),
            StackLayer("output", 15, 10, bias=True),
        )
    )


def test_nested_sequences_are_stacks() -> None:
    network = nn.Sequential(
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU()),
        nn.Identity(),
        nn.Linear(3, 2),
    )
    assert recognise_stack(network) == Stack(
        (StackLayer("2.0", 4, 3, bias=False, relu=True), StackLayer("4", 3, 2, bias=True)), 0.2
    )
    assert recognise_stack(nn.Linear(3, 2)) == Stack((StackLayer("", 3, 2, bias=True),))


def test_an_activation_module_may_appear_twice() -> None:
    act = nn.ReLU()
    stack = recognise_stack(nn.Sequential(nn.Linear(3, 3), act, nn.Linear(3, 3), act, nn.Linear(3, 2)))
    assert not isinstance(stack, str)
    assert [layer.relu for layer in stack.layers] == [True, True, False]


class Subclass(nn.Linear):
    pass


def repeated(shared: nn.Linear, weight_only: bool) -> nn.Module:
    other = nn.Linear(3, 3) if weight_only else shared
    other.weight = shared.weight
    return nn.Sequential(shared, nn.ReLU(), other)


def changed(change: Callable[[nn.Linear], object]) -> nn.Module:
    layer = nn.Linear(3, 3)
    change(layer)
    return nn.Sequential(layer)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (nn.Sequential(nn.Conv2d(1, 1, 1)), "0 is a Conv2d"),
        (nn.Sequential(nn.Linear(2, 2), nn.Tanh()), "1 is a Tanh"),
        (nn.Sequential(Subclass(2, 2)), "0 is a Subclass"),
        (repeated(nn.Linear(3, 3), weight_only=True), "layers share weights"),
        (changed(lambda layer: layer.weight.requires_grad_(False)), "some of its parameters are frozen"),
        (changed(lambda layer: layer.register_forward_hook(lambda *_: None)), "0 has hooks"),
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1), nn.ReLU()), "2 comes after a dropout"),
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1), nn.Dropout(0.1)), "2 is the second dropout in a row"),
        (nn.Sequential(nn.Linear(2, 2), nn.Flatten()), "1 flattens something other than the inputs"),
        (nn.Sequential(nn.Linear(2, 2, dtype=torch.float64)), "0 is of torch.float64"),
        (nn.Sequential(nn.Flatten()), "it has no linear layer"),
        (nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), "0 is a ReLU"),
        (nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "something comes after 0, its last linear layer"),
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout()), "something comes after 0, its last linear layer"),
        (repeated(nn.Linear(3, 3), weight_only=False), "layers share weights"),
        (changed(lambda layer: layer.weight.register_hook(lambda gradient: gradient)), "0 has hooks"),
        (changed(lambda layer: vars(layer).update(forward=None)), "0 has hooks"),
    ],
)
def test_other_networks_are_not_stacks_for_a_reason(network: nn.Module, reason: str) -> None:
    assert recognise_stack(network) == reason


def test_layers_may_lack_bias_or_relu() -> None:
    stack = recognise_stack(nn.Sequential(nn.Linear(64, 8, bias=False), nn.Linear(8, 10)))
    assert not isinstance(stack, str)
    assert [(layer.bias, layer.relu) for layer in stack.layers] == [(False, False), (True, False)]
