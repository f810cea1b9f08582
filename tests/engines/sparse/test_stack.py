from __future__ import annotations

import pytest
import torch
from torch import nn

from tombola.engines.sparse.stack import Stack, StackLayer, stack_of
from tombola.zoo.models.mlp import mlp


def test_the_networks_of_the_zoo_are_stacks() -> None:
    stack = stack_of(mlp((8, 8), 10, [20, 15], dropout=0.3))
    assert stack == Stack(
        (
            StackLayer("fc1", 64, 20, bias=True, relu=True, dropout=0.3),
            StackLayer("fc2", 20, 15, bias=True, relu=True, dropout=0.3),
            StackLayer("output", 15, 10, bias=True),
        )
    )


def test_stacks_within_stacks() -> None:
    network = nn.Sequential(
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU()),
        nn.Identity(),
        nn.Linear(3, 2),
    )
    assert stack_of(network) == Stack(
        (StackLayer("2.0", 4, 3, bias=False, relu=True), StackLayer("4", 3, 2, bias=True)), 0.2
    )
    assert stack_of(nn.Linear(3, 2)) == Stack((StackLayer("", 3, 2, bias=True),))


def test_an_activation_may_be_shared() -> None:
    act = nn.ReLU()
    stack = stack_of(nn.Sequential(nn.Linear(3, 3), act, nn.Linear(3, 3), act, nn.Linear(3, 2)))
    assert not isinstance(stack, str)
    assert [layer.relu for layer in stack.layers] == [True, True, False]


def shared() -> nn.Module:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    return nn.Sequential(first, nn.ReLU(), second)


def frozen() -> nn.Module:
    layer = nn.Linear(3, 3)
    layer.weight.requires_grad_(False)
    return nn.Sequential(layer)


def hooked() -> nn.Module:
    layer = nn.Linear(3, 3)
    layer.register_forward_hook(lambda *_: None)
    return nn.Sequential(layer)


def twice() -> nn.Module:
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.ReLU(), layer)


def hooked_weight() -> nn.Module:
    layer = nn.Linear(3, 3)
    layer.weight.register_hook(lambda gradient: gradient * 0)
    return nn.Sequential(layer)


def patched() -> nn.Module:
    layer = nn.Linear(3, 3)
    layer.forward = lambda x: x  # type: ignore[method-assign]
    return nn.Sequential(layer)


class Derived(nn.Linear):
    pass


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (nn.Sequential(nn.Conv2d(1, 1, 1)), "0 is a Conv2d"),
        (nn.Sequential(nn.Linear(2, 2), nn.Tanh()), "1 is a Tanh"),
        (nn.Sequential(Derived(2, 2)), "0 is a Derived"),
        (shared(), "layers share weights"),
        (frozen(), "some of its parameters are frozen"),
        (hooked(), "0 has hooks"),
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1), nn.ReLU()), "2 comes after a dropout"),
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1), nn.Dropout(0.1)), "2 is the second dropout in a row"),
        (nn.Sequential(nn.Linear(2, 2), nn.Flatten()), "1 flattens something other than the inputs"),
        (nn.Sequential(nn.Linear(2, 2, dtype=torch.float64)), "0 is of torch.float64"),
        (nn.Sequential(nn.Flatten()), "it has no linear layer"),
        (nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), "0 is a ReLU"),
        (nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "something comes after 0, its last linear layer"),
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout()), "something comes after 0, its last linear layer"),
        (twice(), "layers share weights"),
        (hooked_weight(), "0 has hooks"),
        (patched(), "0 has hooks"),
    ],
)
def test_whatever_else_is_no_stack_and_says_why(network: nn.Module, reason: str) -> None:
    assert stack_of(network) == reason
