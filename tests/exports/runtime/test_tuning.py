from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.support.runtime_networks import plan_for
from tombola.exports.runtime import tuning
from tombola.exports.runtime.tuning import is_faster, tuned
from tombola.kernels import inference as k
from tombola.kernels.plans.plan import Plan

EXAMPLE = torch.ones(1, 2, 6, 6)


def plan(density: float = 0.5) -> Plan:
    """A convolution, a depthwise one, a pooling and a linear layer."""
    convolutions = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4)
    layers = *convolutions, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 3)
    network = nn.Sequential(*layers)
    for layer in (layers[0], layers[-1]):
        weight = layer.get_parameter("weight")
        with torch.no_grad():
            weight.copy_(torch.linspace(-1, 1, weight.numel()).reshape(weight.shape))
            weight.view(-1)[round(density * weight.numel()) :] = 0
    return plan_for(network, EXAMPLE)


def kinds(table: k.Table) -> list[int]:
    return [int(kind) for kind in table[:, k.KIND]]


@pytest.mark.parametrize("dense", [False, True])
def test_layers_are_dense_if_that_is_faster(monkeypatch: pytest.MonkeyPatch, dense: bool) -> None:
    monkeypatch.setattr(tuning, "is_faster", lambda *_: dense)
    either = k.DENSE if dense else k.SPARSE
    program = tuned(plan())
    program.check()
    assert kinds(program.table) == [k.INPUT, either, k.SPARSE, k.MAX_POOL, either]


def test_each_layer_is_measured_sparse_and_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first is reported to be faster dense; both ways can be called."""
    answers = iter([True, False])

    def measured(one: object, other: object) -> bool:
        for way in (one, other):
            assert callable(way)
            way()
        return next(answers)

    monkeypatch.setattr(tuning, "is_faster", measured)
    assert kinds(tuned(plan()).table) == [k.INPUT, k.DENSE, k.SPARSE, k.MAX_POOL, k.SPARSE]


def test_layers_of_low_density_are_not_tried_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> bool:
        pytest.fail("tried")

    monkeypatch.setattr(tuning, "is_faster", never)
    monkeypatch.setattr(tuning, "MIN_DENSE_DENSITY", 0.51)
    assert kinds(tuned(plan()).table) == [k.INPUT, k.SPARSE, k.SPARSE, k.MAX_POOL, k.SPARSE]


def test_density_is_relative_to_all_weights_of_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The convolution has 72 weights, the linear layer 12."""
    monkeypatch.setattr(tuning, "is_faster", lambda *_: True)
    monkeypatch.setattr(tuning, "MIN_DENSE_DENSITY", 0.25)
    assert k.DENSE in kinds(tuned(plan(0.25)).table)
    monkeypatch.setattr(tuning, "MIN_DENSE_DENSITY", 0.26)
    assert k.DENSE not in kinds(tuned(plan(0.25)).table)


def test_a_network_without_weights_is_not_tuned() -> None:
    assert kinds(tuned(plan_for(nn.MaxPool2d(2), EXAMPLE)).table) == [k.INPUT, k.MAX_POOL]


@pytest.mark.parametrize("slow", [0, 1])
def test_the_faster_function_has_the_smaller_median(monkeypatch: pytest.MonkeyPatch, slow: int) -> None:
    clock, calls = [0.0], [0, 0]

    def way(which: int) -> None:
        calls[which] += 1
        hindered = which != slow and calls[which] in (1, 3, 5)
        clock[0] += 100 if hindered else 2 if which == slow else 1

    monkeypatch.setattr(tuning, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    assert is_faster(lambda: way(0), lambda: way(1)) == (slow == 1)


def test_functions_are_called_alternately() -> None:
    turns: list[str] = []
    is_faster(lambda: turns.append("one"), lambda: turns.append("other"))
    assert turns == ["one", "other"] * (tuning.ROUNDS + 1)
