from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tests.conftest import random_mask
from tests.engines.helpers import dense_run
from tombola.engines.module_learner import ModuleLearner
from tombola.engines.sparse.layout import DENSE_ABOVE
from tombola.engines.sparse.stack import stack_of
from tombola.engines.sparse.stack_learner import StackLearner
from tombola.runs.run import Run
from tombola.zoo.batches import batches
from tombola.zoo.datasets import prepare
from tombola.zoo.models import build


def learner_of(run: Run) -> StackLearner:
    network = build(run.start)
    stack = stack_of(network)
    assert not isinstance(stack, str)
    return StackLearner(stack, network.state_dict(), run, prepare(run.data))


def eager_of(run: Run) -> ModuleLearner:
    network = build(run.start)
    run.mask.apply_(network)
    return ModuleLearner(network, run, prepare(run.data), torch.device("cpu"))


def orders_of(run: Run, iterations: int, first: int = 0) -> Tensor:
    return batches(run.seed, len(prepare(run.data).train), run.training.batch_size, first, iterations)[None]


@settings(max_examples=40, deadline=None)
@given(
    widths=st.lists(st.integers(1, 40), max_size=3),
    batch=st.integers(1, 150),
    density=st.one_of(st.just(1.0), st.floats(0.01, 1)),
    optimizer=st.sampled_from(["adam", "sgd"]),
    momentum=st.sampled_from([0.0, 0.9]),
    nesterov=st.booleans(),
    weight_decay=st.sampled_from([0.0, 0.01]),
    schedule=st.sampled_from(
        [{}, {"schedule": "cosine", "warmup": "5it"}, {"schedule": "step", "milestones": ["7it"]}]
    ),
    scale=st.sampled_from(["range", "standard"]),
    seed=st.integers(0, 999),
)
def test_it_follows_eager_to_rounding_and_never_touches_a_pruned_weight(
    widths: list[int],
    batch: int,
    density: float,
    optimizer: str,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    schedule: dict[str, Any],
    scale: str,
    seed: int,
) -> None:
    run = dense_run(
        seed=seed,
        model={"name": "mlp", "widths": widths},
        data={"name": "digits", "validation": 200, "scale": scale},
        training={
            "optimizer": optimizer,
            "lr": 3e-3 if optimizer == "adam" else 0.02,
            "batch_size": batch,
            "length": "20it",
            "momentum": momentum if optimizer == "sgd" else 0.0,
            "nesterov": nesterov and optimizer == "sgd" and momentum > 0,
            "weight_decay": weight_decay,
            **schedule,
        },
        search={"levels": 1, "rate": 0.1},
    )
    if density < 1:
        run = run.masked(random_mask(run, density, seed))
    ours, eager, orders = learner_of(run), eager_of(run), orders_of(run, 20)
    for n in range(20):
        ours.train(orders[:, n : n + 1], n)
        eager.train(orders[:, n : n + 1], n)
        np.testing.assert_allclose(ours.take_losses(), eager.take_losses(), rtol=1e-3, atol=1e-5)
        (state,) = ours.weights()
        for name, kept in run.mask.items():
            assert (state[name][~kept] == 0).all()
    (expected,) = eager.weights()
    assert list(state) == list(expected)
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-2, atol=1e-4)
    for part in ("train", "validation", "test"):
        np.testing.assert_allclose(ours.evaluate(part), eager.evaluate(part), rtol=1e-2, atol=5e-3)


@pytest.mark.parametrize("density", [1.0, 0.9, DENSE_ABOVE - 0.05, 0.3, 0.05, 0.0])
def test_only_the_weights_left_are_there(density: float) -> None:
    run = dense_run()
    run = run.masked(random_mask(run, density))
    ours = learner_of(run)
    weights = ours.layout.size - sum(layer.outputs for layer in ours.layout.stack.layers)
    assert weights == (run.mask.size if density > DENSE_ABOVE else run.mask.count)
    for array in (ours.now.parameters, ours.now.first, ours.now.second, ours.best):
        assert array.size < ours.layout.size + 16
    ours.train(orders_of(run, 30), 0)
    (state,) = ours.weights()
    for name, kept in run.mask.items():
        assert (state[name][~kept] == 0).all()


def test_what_comes_after_a_snapshot_is_the_same_again() -> None:
    run = dense_run(model={"name": "mlp", "widths": [20, 10], "dropout": 0.3})
    run = run.masked(random_mask(run, 0.3))
    ours = learner_of(run)
    ours.train(orders_of(run, 13), 0)
    ours.keep([True])
    ours.train(orders_of(run, 4, first=13), 13)
    state = {name: tensor.clone() for name, tensor in ours.state().items()}
    other = learner_of(run)
    other.load(state)
    for learner in (ours, other):
        learner.train(orders_of(run, 10, first=17), 17)
    assert ours.take_losses() == other.take_losses()
    (a,), (b,) = ours.weights(), other.weights()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert ours.evaluate("test", best=True) == other.evaluate("test", best=True)


def test_the_best_weights_are_those_kept() -> None:
    run = dense_run()
    ours = learner_of(run)
    ours.train(orders_of(run, 10), 0)
    then = ours.evaluate("validation")
    ours.keep([True])
    ours.train(orders_of(run, 10, first=10), 10)
    assert ours.evaluate("validation") != then
    assert ours.evaluate("validation", best=True) == then


def dropped(run: Run, **changes: Any) -> StackLearner:
    ours = learner_of(run)
    ours.options = ours.options._replace(**changes)
    return ours


def test_dropout_drops_as_often_as_it_should_and_never_in_evaluation() -> None:
    run = dense_run(model={"name": "mlp", "widths": [400, 300], "dropout": 0.3})
    ours = learner_of(run)
    before = ours.evaluate("test")
    assert before == ours.evaluate("test")
    ours.train(orders_of(run, 1), 0)
    hidden = ours.rooms.factors[: 700 * ours.width]
    assert set(np.unique(hidden)) == {np.float32(0), np.float32(1 / 0.7)}
    assert (hidden == 0).mean() == pytest.approx(0.3, abs=0.01)
    per_unit = (hidden.reshape(700, -1) == 0).mean(axis=1)
    assert per_unit.std() == pytest.approx((0.3 * 0.7 / ours.width) ** 0.5, rel=0.2)


def test_dropout_is_drawn_anew_for_each_iteration_and_seed() -> None:
    run = dense_run(model={"name": "mlp", "widths": [50], "dropout": 0.5})
    drawn = []
    for noise, iterations in ((1, 1), (1, 2), (2, 1), (1, 1)):
        ours = dropped(run, noise=noise)
        ours.train(orders_of(run, iterations), 0)
        drawn.append(ours.rooms.factors[: 50 * ours.width].copy())
    first, later, other, again = drawn
    assert np.array_equal(first, again)
    for some in (later, other):
        assert (some == first).mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_gradients_with_dropout_are_those_of_the_network_that_is_left(density: float) -> None:
    run = dense_run(
        model={"name": "mlp", "widths": [30, 20], "dropout": 0.4},
        training={"optimizer": "sgd", "lr": 1.0, "batch_size": 40, "length": "1it"},
    )
    run = run.masked(random_mask(run, density)) if density < 1 else run
    ours = learner_of(run)
    (before,) = ours.weights()
    ours.train(orders_of(run, 1), 0)
    (after,) = ours.weights()
    units = ours.rooms.factors[: 50 * ours.width].reshape(50, ours.width)[:, :40]
    factors = [torch.from_numpy(f.T.copy()) for f in (units[:30], units[30:])]
    for tensor in before.values():
        tensor.requires_grad_()
    x, y = prepare(run.data).train[orders_of(run, 1)[0, 0]]
    hidden = functional.relu(functional.linear(x.flatten(1), before["fc1.weight"], before["fc1.bias"])) * factors[0]
    hidden = functional.relu(functional.linear(hidden, before["fc2.weight"], before["fc2.bias"])) * factors[1]
    logits = functional.linear(hidden, before["output.weight"], before["output.bias"])
    functional.cross_entropy(logits, y).backward()  # type: ignore[no-untyped-call]
    for name, tensor in before.items():
        kept = run.mask.get(name, torch.ones_like(tensor, dtype=torch.bool))
        torch.testing.assert_close(after[name], (tensor - tensor.grad * kept).detach(), rtol=1e-4, atol=1e-5)


def test_layers_may_stand_without_bias_or_relu() -> None:
    stack = stack_of(torch.nn.Sequential(torch.nn.Linear(64, 8, bias=False), torch.nn.Linear(8, 10)))
    assert not isinstance(stack, str)
    assert [dataclasses.astuple(layer)[3:5] for layer in stack.layers] == [(False, False), (True, False)]
    run = dense_run(model={"name": f"{__name__}:two_linear_layers"})
    ours, eager, orders = learner_of(run), eager_of(run), orders_of(run, 20)
    ours.train(orders, 0)
    eager.train(orders, 0)
    np.testing.assert_allclose(ours.take_losses(), eager.take_losses(), rtol=1e-4)


def two_linear_layers() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8, bias=False), torch.nn.Linear(8, 10))
