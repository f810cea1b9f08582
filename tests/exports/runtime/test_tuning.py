from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.exports.runtime.helpers import planned
from tombola.exports.runtime import kernels as k
from tombola.exports.runtime import tuning
from tombola.exports.runtime.plan import Plan
from tombola.exports.runtime.tuning import faster, tuned

EXAMPLE = torch.ones(1, 2, 6, 6)


def plan(density: float = 0.5) -> Plan:
    """A convolution, a depthwise one, a pooling and a linear layer."""
    layers = (
        nn.Conv2d(2, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    network = nn.Sequential(*layers)
    for layer in (layers[0], layers[-1]):
        weight = layer.get_parameter("weight")
        with torch.no_grad():
            weight.copy_(torch.linspace(-1, 1, weight.numel()).reshape(weight.shape))
            weight.view(-1)[round(density * weight.numel()) :] = 0
    return planned(network, EXAMPLE)


def kinds(table: k.Table) -> list[int]:
    return [int(kind) for kind in table[:, k.KIND]]


@pytest.mark.parametrize("dense", [False, True])
def test_layers_are_dense_where_that_is_faster(monkeypatch: pytest.MonkeyPatch, dense: bool) -> None:
    monkeypatch.setattr(tuning, "faster", lambda *_: dense)
    either = k.DENSE if dense else k.SPARSE
    program = tuned(plan())
    program.check()
    assert kinds(program.table) == [k.INPUT, either, k.SPARSE, k.LARGEST, either]


def test_each_layer_is_measured_by_itself_in_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first alone is said to be faster dense; both ways write what they should into the room."""
    answers = iter([True, False])

    def measured(one: object, other: object) -> bool:
        for way in (one, other):
            assert callable(way)
            way()
        return next(answers)

    monkeypatch.setattr(tuning, "faster", measured)
    assert kinds(tuned(plan()).table) == [k.INPUT, k.DENSE, k.SPARSE, k.LARGEST, k.SPARSE]


def test_what_is_nearly_empty_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> bool:
        raise AssertionError("tried")

    monkeypatch.setattr(tuning, "faster", never)
    monkeypatch.setattr(tuning, "SPARSE_BELOW", 0.51)
    assert kinds(tuned(plan()).table) == [k.INPUT, k.SPARSE, k.SPARSE, k.LARGEST, k.SPARSE]


def test_the_density_is_of_all_weights_of_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The convolution has 72 weights, the linear layer 12."""
    monkeypatch.setattr(tuning, "faster", lambda *_: True)
    monkeypatch.setattr(tuning, "SPARSE_BELOW", 0.25)
    assert k.DENSE in kinds(tuned(plan(0.25)).table)
    monkeypatch.setattr(tuning, "SPARSE_BELOW", 0.26)
    assert k.DENSE not in kinds(tuned(plan(0.25)).table)


def test_without_weights_there_is_nothing_to_choose() -> None:
    assert kinds(tuned(planned(nn.MaxPool2d(2), EXAMPLE)).table) == [k.INPUT, k.LARGEST]


@pytest.mark.parametrize("slow", [0, 1])
def test_the_way_that_takes_less_time_is_faster_but_once_or_twice(monkeypatch: pytest.MonkeyPatch, slow: int) -> None:
    clock, calls = [0.0], [0, 0]

    def way(which: int) -> None:
        calls[which] += 1
        hindered = which != slow and calls[which] in (1, 3, 5)
        clock[0] += 100 if hindered else 2 if which == slow else 1

    monkeypatch.setattr(tuning, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    assert faster(lambda: way(0), lambda: way(1)) == (slow == 1)


def test_both_ways_take_turns() -> None:
    turns: list[str] = []
    faster(lambda: turns.append("one"), lambda: turns.append("other"))
    assert turns == ["one", "other"] * (tuning.TURNS + 1)
