"""Hooks of users are part of a fingerprint; those of tombola are not."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules import module as modules
from torch.optim import optimizer as optimizers

from tombola.engines.custom.fingerprint import fingerprint, training_fingerprint
from tombola.engines.custom.hooks import global_hooks, tensor_hooks
from tombola.engines.custom.step_counter import counting_steps
from tombola.pruning.hold import hold
from tombola.pruning.mask import Mask


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))


def zero(*arguments: Any) -> Any:
    return 0 * arguments[-1]


def scaled(factor: float, *arguments: Any) -> Any:
    return factor * arguments[-1]


def outputs(factor: float) -> Callable[..., Any]:
    return lambda *arguments: factor * arguments[-1]


class Doubling:
    def __init__(self, factor: float = 2.0) -> None:
        self.factor = factor

    def __call__(self, *arguments: Any) -> Any:
        return self.factor * arguments[-1]

    def method(self, *arguments: Any) -> Any:
        return self.factor * arguments[-1]


PLACES = (
    "register_forward_hook",
    "register_forward_pre_hook",
    "register_full_backward_hook",
    "register_full_backward_pre_hook",
    "register_state_dict_post_hook",
    "register_state_dict_pre_hook",
    "register_load_state_dict_pre_hook",
    "register_load_state_dict_post_hook",
    "_register_state_dict_hook",
    "_register_load_state_dict_pre_hook",
)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (zero, outputs(1.0)),
        (outputs(1.0), outputs(2.0)),
        (Doubling(), Doubling(3.0)),
        (Doubling().method, Doubling(3.0).method),
        (functools.partial(scaled, 1.0), functools.partial(scaled, 2.0)),
    ],
)
def test_hooks_of_a_network_are_included(place: str, one: Any, other: Any) -> None:
    if place == "register_state_dict_post_hook":  # torch sets an attribute of it
        one, other = functools.partial(one), functools.partial(other)

    def hooked(hook: Any, layer: int = 0) -> str:
        made = network()
        getattr(made[layer], place)(hook)  # type: ignore[index]
        return fingerprint(made)

    plain = fingerprint(network())
    assert len({plain, hooked(one), hooked(other), hooked(one, layer=1)}) == 4
    assert hooked(one) == hooked(one)  # the numbers of hooks differ


def test_how_a_hook_is_called_is_included() -> None:
    def hooked(**options: Any) -> str:
        made = network()
        made.register_forward_hook(zero, **options)
        return fingerprint(made)

    assert len({hooked(), hooked(with_kwargs=True), hooked(always_call=True)}) == 3


def test_the_order_of_hooks_is_included_and_removed_ones_are_not() -> None:
    def hooked(*hooks: Any) -> nn.Module:
        made = network()
        for hook in hooks:
            made.register_forward_hook(hook)
        return made

    one, other = outputs(1.0), outputs(2.0)
    assert fingerprint(hooked(one, other)) != fingerprint(hooked(other, one))
    removed = hooked(one)
    removed.register_forward_hook(other).remove()
    assert fingerprint(removed) == fingerprint(hooked(one))
    emptied = network()
    emptied.register_full_backward_hook(one).remove()
    assert fingerprint(emptied) == fingerprint(network())


def test_hooks_of_tombola_are_left_out() -> None:
    held = network()
    with hold(held, Mask({"0.weight": torch.eye(3) > 0})):
        held[0].load_state_dict(network()[0].state_dict())  # type: ignore[index]
        pruned = network()
        pruned[0].weight.data[torch.eye(3) == 0] = 0  # type: ignore[index, operator]
        assert fingerprint(held) == fingerprint(pruned)
        with counting_steps(held):
            assert training_fingerprint(1) == fingerprint([1])


@pytest.mark.parametrize("place", ["register_hook", "register_post_accumulate_grad_hook"])
def test_hooks_of_tensors_are_included(place: str) -> None:
    def hooked(factor: float) -> nn.Module:
        made = network()
        getattr(made[0].weight, place)(outputs(factor))  # type: ignore[index]
        return made

    assert len({fingerprint(network()), fingerprint(hooked(1.0)), fingerprint(hooked(2.0))}) == 3
    assert fingerprint(hooked(1.0)) == fingerprint(hooked(1.0))
    assert tensor_hooks(hooked(1.0)[0].bias) == []  # type: ignore[index]


@pytest.fixture
def _global_hooks() -> Iterator[None]:
    yield
    for table in (*vars(modules).items(), *vars(optimizers).items()):
        if table[0].startswith("_global_") and isinstance(table[1], dict):
            for key in [key for key, hook in table[1].items() if hook in (zero, scaled)]:
                del table[1][key]


@pytest.mark.parametrize(
    "register",
    [
        modules.register_module_forward_hook,
        modules.register_module_forward_pre_hook,
        modules.register_module_full_backward_hook,
        optimizers.register_optimizer_step_pre_hook,
        optimizers.register_optimizer_step_post_hook,
    ],
)
@pytest.mark.usefixtures("_global_hooks")
def test_global_hooks_are_part_of_a_training(register: Callable[[Any], Any]) -> None:
    before = training_fingerprint(1)
    assert before == fingerprint([1])
    handle = register(zero)
    one = training_fingerprint(1)
    handle.remove()
    handle = register(scaled)
    assert len({before, one, training_fingerprint(1)}) == 3
    handle.remove()
    assert global_hooks() == []
    assert training_fingerprint(1) == before


def test_the_default_dtype_is_part_of_a_training() -> None:
    before = training_fingerprint(1)
    torch.set_default_dtype(torch.float64)
    try:
        assert training_fingerprint(1) != before
    finally:
        torch.set_default_dtype(torch.float32)
