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


def test_steps_are_counted_whichever_optimizers_make_them() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with counting_steps(network) as watch:
        step(sgd(network), sgd(network), torch.optim.Adam(network.parameters()))
    assert watch.steps == 3
    assert not watch.reached
    with counting_steps(network) as watch:  # two that take turns with different parameters
        first, second = (sgd(layer) for layer in network)
        for _ in range(4):
            step(first, second)
    assert watch.steps == 4


def test_other_networks_do_not_count() -> None:
    network, other = nn.Linear(2, 2), nn.Linear(2, 2)
    with counting_steps(network) as watch:
        step(sgd(other))
    assert watch.steps == 0


def test_the_block_ends_at_the_step_it_should() -> None:
    network = nn.Linear(2, 2)
    optimizer = sgd(network)
    with counting_steps(network, end=3) as watch:
        for _ in range(10):
            step(optimizer)
        pytest.fail("it went on")
    assert watch.reached
    assert watch.steps == 3
    step(optimizer)  # nobody is watching any more
    assert watch.steps == 3


def test_a_mark_ends_what_is_to_end_there_and_nothing_else() -> None:
    mark()
    with counting_steps(nn.Linear(2, 2)) as watch:
        mark()
    assert not watch.reached
    with counting_steps(nn.Linear(2, 2), at_mark=True) as watch:
        mark()
        pytest.fail("it went on")
    assert watch.reached


def test_no_handler_of_errors_takes_it_for_one() -> None:
    with counting_steps(nn.Linear(2, 2), at_mark=True) as watch:
        try:
            mark()
        except Exception:  # noqa: BLE001 - as broad as a framework would
            pytest.fail("it was caught")
    assert watch.reached
    assert not issubclass(TrainingEnded, Exception)


def test_steps_of_an_optimizer_that_another_drives_are_not_counted_twice() -> None:
    network = nn.Linear(2, 2)

    class Driving(torch.optim.Optimizer):
        def __init__(self) -> None:
            super().__init__(network.parameters(), {})
            self.inner = sgd(network)

        def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
            self.inner.step()
            self.inner.step()

    with counting_steps(network, end=3) as watch:
        driving = Driving()
        for _ in range(5):
            step(driving)
    assert watch.reached
    assert watch.steps == 3


def test_a_signal_that_was_caught_is_remembered() -> None:
    with counting_steps(nn.Linear(2, 2), at_mark=True) as watch, contextlib.suppress(BaseException):
        mark()
    assert watch.thrown
    assert not watch.reached
