from __future__ import annotations

from collections import OrderedDict, UserDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tombola.exports.plain_outputs import plain, with_plain_outputs
from tombola.utils.model_inputs import tensors

ONE, TWO = torch.zeros(2), torch.ones(3)


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclass
class Output:
    logits: Any
    loss: Any = None
    cache: Any = None


class Cache:
    def __init__(self, keys: Tensor) -> None:
        self.keys = keys


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (ONE, ONE),
        ((ONE, None, TWO), (ONE, None, TWO)),
        ([ONE, Cache(TWO)], [ONE, None]),
        (Pair(ONE, Pair(TWO, 3)), (ONE, (TWO, 3))),
        ({"a": ONE, "b": None, "c": Cache(TWO), "d": 1.5, "e": True}, {"a": ONE, "d": 1.5, "e": True}),
        (OrderedDict(z=ONE, a=UserDict(b=TWO)), {"z": ONE, "a": {"b": TWO}}),
        (Output(ONE, cache=(Cache(TWO), TWO)), {"logits": ONE, "cache": (None, TWO)}),
        ({"outputs": Output(ONE, TWO)}, {"outputs": {"logits": ONE, "loss": TWO}}),
    ],
)
def test_containers_become_plain_ones(outputs: Any, expected: Any) -> None:
    found = plain(outputs)
    assert _types(found) == _types(expected)
    assert all(each is other for each, other in zip(tensors(found), tensors(expected), strict=True))
    assert all(each is other for each, other in zip(tensors(outputs), tensors(found), strict=True))


def _types(value: Any) -> Any:
    if isinstance(value, dict):
        return type(value), {name: _types(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [_types(each) for each in value]
    return type(value) if isinstance(value, Tensor) else value


@pytest.fixture
def registered() -> Iterator[type]:
    """A class whose tensors torch can find."""

    class Registered(Cache):
        pass

    pytree.register_pytree_node(Registered, lambda each: ([each.keys], None), lambda keys, _: Registered(*keys))
    yield Registered
    pytree._deregister_pytree_node(Registered)


def test_a_class_that_torch_knows_becomes_a_tuple(registered: Any) -> None:
    outputs = {"logits": ONE, "cache": registered(TWO)}
    assert _types(plain(outputs)) == (dict, {"logits": Tensor, "cache": (tuple, [Tensor])})
    assert [*map(id, tensors(outputs))] == [*map(id, tensors(plain(outputs)))]


def test_a_network_returns_them_from_then_on() -> None:
    class Network(nn.Module):
        def forward(self, x: Tensor) -> Output:
            return Output(x + 1)

    network = Network()
    network.register_forward_hook(lambda *_: Output(ONE, loss=TWO))  # a hook of the user comes first
    assert _types(with_plain_outputs(network)(TWO)) == (dict, {"logits": Tensor, "loss": Tensor})
