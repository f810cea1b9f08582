from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

from tombola.engines.custom.step_counter import TrainingEnded, counting_steps, mark


def step(*optimizers: torch.optim.Optimizer) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        optimizer.step()


def sgd(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), 0.1)


def test_steps_of_all_optimizers_are_counted() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with counting_steps(network) as counter:
        step(sgd(network), sgd(network), torch.optim.Adam(network.parameters()))
    assert counter.steps == 3
    assert not counter.reached
    with counting_steps(network) as counter:  # different parameters
        first, second = (sgd(layer) for layer in network)
        for _ in range(4):
            step(first, second)
    assert counter.steps == 4


def test_steps_of_other_networks_are_not_counted() -> None:
    network, other = nn.Linear(2, 2), nn.Linear(2, 2)
    with counting_steps(network) as counter:
        step(sgd(other))
    assert counter.steps == 0


def test_the_block_ends_at_the_given_step() -> None:
    network = nn.Linear(2, 2)
    optimizer = sgd(network)
    with counting_steps(network, end=3) as counter:
        for _ in range(10):
            step(optimizer)
        pytest.fail("it did not end")
    assert counter.reached
    assert counter.steps == 3
    step(optimizer)  # not counted
    assert counter.steps == 3


def test_a_mark_ends_only_blocks_that_end_at_a_mark() -> None:
    mark()
    with counting_steps(nn.Linear(2, 2)) as counter:
        mark()
    assert not counter.reached
    with counting_steps(nn.Linear(2, 2), at_mark=True) as counter:
        mark()
        pytest.fail("it did not end")
    assert counter.reached


def test_handlers_of_exceptions_do_not_catch_the_end() -> None:
    with counting_steps(nn.Linear(2, 2), at_mark=True) as counter:
        try:
            mark()
        except Exception:  # noqa: BLE001 - as frameworks do
            pytest.fail("it was caught")
    assert counter.reached
    assert not issubclass(TrainingEnded, Exception)


def test_steps_within_the_step_of_another_optimizer_are_not_counted() -> None:
    network = nn.Linear(2, 2)

    class Outer(torch.optim.Optimizer):
        def __init__(self) -> None:
            super().__init__(network.parameters(), {})
            self.inner = sgd(network)

        def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
            self.inner.step()
            self.inner.step()

    with counting_steps(network, end=3) as counter:
        outer = Outer()
        for _ in range(5):
            step(outer)
    assert counter.reached
    assert counter.steps == 3


def test_a_caught_end_is_recorded() -> None:
    with counting_steps(nn.Linear(2, 2), at_mark=True) as counter, contextlib.suppress(BaseException):
        mark()
    assert counter.raised
    assert not counter.reached
