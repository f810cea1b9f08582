"""Stacks of linear layers, and their learner."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tests.support.networks import MLP_WITH_DROPOUT
from tests.support.outcomes import random_mask
from tests.support.training import batch_orders, dense_run, module_learner, pruned_run
from tombola.engines.sparse.stack import Stack, StackLayer, recognise_stack
from tombola.engines.sparse.stack_layout import DENSE_ABOVE
from tombola.engines.sparse.stack_learner import StackLearner
from tombola.runs.run import Run
from tombola.zoo.datasets import prepare
from tombola.zoo.models import build
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


def stack_learner(run: Run) -> StackLearner:
    network = build(run.start)
    stack = recognise_stack(network)
    assert not isinstance(stack, str)
    return StackLearner(stack, network.state_dict(), run, prepare(run.data))


@settings(max_examples=20, deadline=None)
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
def test_it_follows_eager_and_pruned_weights_stay_zero(
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
    run = run.masked(random_mask(run, density, seed))
    ours, eager, orders = stack_learner(run), module_learner(run), batch_orders([run], 20)
    for n in range(20):
        ours.train(orders[:, n : n + 1], n)
        eager.train(orders[:, n : n + 1], n)
        np.testing.assert_allclose(ours.take_losses(), eager.take_losses(), rtol=1e-3, atol=1e-5)
        (state,) = ours.weights()
        for name, kept in run.mask.items():
            assert (state[name][~kept] == 0).all()
    (expected,) = eager.weights()
    assert list(state) == list(expected)
    # Where gradients cancel to about zero, Adam turns their rounding errors into whole steps.
    atol = 3e-3 if optimizer == "adam" else 1e-4
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-2, atol=atol)
    for part in ("train", "validation", "test"):
        np.testing.assert_allclose(ours.evaluate(part), eager.evaluate(part), rtol=1e-2, atol=5e-3)


@pytest.mark.parametrize("density", [1.0, 0.9, DENSE_ABOVE - 0.05, 0.3, 0.05, 0.0])
def test_only_the_kept_weights_are_stored(density: float) -> None:
    run = pruned_run(density)
    ours = stack_learner(run)
    weights = ours.layout.size - sum(layer.outputs for layer in ours.layout.stack.layers)
    assert weights == (run.mask.size if density > DENSE_ABOVE else run.mask.count)
    for array in (ours.current.parameters, ours.current.first, ours.current.second, ours.best):
        assert array.size < ours.layout.size + 16


def test_training_from_a_state_dict_gives_the_same_bits() -> None:
    run = pruned_run(0.3, model=MLP_WITH_DROPOUT)
    ours = stack_learner(run)
    ours.train(batch_orders([run], 13), 0)
    ours.keep_best([True])
    ours.train(batch_orders([run], 4, 13), 13)
    state = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    other = stack_learner(run)
    other.load_state_dict(state)
    for learner in (ours, other):
        learner.train(batch_orders([run], 10, 17), 17)
    assert ours.take_losses() == other.take_losses()
    (a,), (b,) = ours.weights(), other.weights()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert ours.evaluate("test", best=True) == other.evaluate("test", best=True)


def test_the_best_weights_are_those_of_keep_best() -> None:
    run = dense_run()
    ours = stack_learner(run)
    ours.train(batch_orders([run], 10), 0)
    then = ours.evaluate("validation")
    ours.keep_best([True])
    ours.train(batch_orders([run], 10, 10), 10)
    assert ours.evaluate("validation") != then
    assert ours.evaluate("validation", best=True) == then


def learner_with_options(run: Run, **changes: Any) -> StackLearner:
    ours = stack_learner(run)
    ours.options = ours.options._replace(**changes)
    return ours


def test_dropout_has_its_probability_and_is_not_used_in_evaluation() -> None:
    run = dense_run(model={"name": "mlp", "widths": [400, 300], "dropout": 0.3})
    ours = stack_learner(run)
    before = ours.evaluate("test")
    assert before == ours.evaluate("test")
    ours.train(batch_orders([run], 1), 0)
    hidden = ours.workspace.factors[: 700 * ours.width]
    assert set(np.unique(hidden)) == {np.float32(0), np.float32(1 / 0.7)}
    assert (hidden == 0).mean() == pytest.approx(0.3, abs=0.01)
    per_unit = (hidden.reshape(700, -1) == 0).mean(axis=1)
    assert per_unit.std() == pytest.approx((0.3 * 0.7 / ours.width) ** 0.5, rel=0.2)


def test_dropout_differs_between_iterations_and_seeds() -> None:
    run = dense_run(model={"name": "mlp", "widths": [50], "dropout": 0.5})
    drawn = []
    for noise, iterations in ((1, 1), (1, 2), (2, 1), (1, 1)):
        ours = learner_with_options(run, noise=noise)
        ours.train(batch_orders([run], iterations), 0)
        drawn.append(ours.workspace.factors[: 50 * ours.width].copy())
    first, later, other, again = drawn
    assert np.array_equal(first, again)
    for some in (later, other):
        assert (some == first).mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_gradients_with_dropout_are_those_of_the_thinned_network(density: float) -> None:
    run = dense_run(
        model={"name": "mlp", "widths": [30, 20], "dropout": 0.4},
        training={"optimizer": "sgd", "lr": 1.0, "batch_size": 40, "length": "1it"},
    )
    run = run.masked(random_mask(run, density))
    ours = stack_learner(run)
    (before,) = ours.weights()
    ours.train(batch_orders([run], 1), 0)
    (after,) = ours.weights()
    units = ours.workspace.factors[: 50 * ours.width].reshape(50, ours.width)[:, :40]
    factors = [torch.from_numpy(f.T.copy()) for f in (units[:30], units[30:])]
    for tensor in before.values():
        tensor.requires_grad_()
    x, y = prepare(run.data).train[batch_orders([run], 1)[0, 0]]
    hidden = functional.relu(functional.linear(x.flatten(1), before["fc1.weight"], before["fc1.bias"])) * factors[0]
    hidden = functional.relu(functional.linear(hidden, before["fc2.weight"], before["fc2.bias"])) * factors[1]
    logits = functional.linear(hidden, before["output.weight"], before["output.bias"])
    functional.cross_entropy(logits, y).backward()  # type: ignore[no-untyped-call]
    for name, tensor in before.items():
        kept = run.mask.get(name, torch.ones_like(tensor, dtype=torch.bool))
        torch.testing.assert_close(after[name], (tensor - tensor.grad * kept).detach(), rtol=1e-4, atol=1e-5)


def test_layers_may_lack_bias_or_relu() -> None:
    stack = recognise_stack(torch.nn.Sequential(torch.nn.Linear(64, 8, bias=False), torch.nn.Linear(8, 10)))
    assert not isinstance(stack, str)
    assert [dataclasses.astuple(layer)[3:5] for layer in stack.layers] == [(False, False), (True, False)]
    run = dense_run(model={"name": f"{__name__}:two_linear_layers"})
    ours, eager, orders = stack_learner(run), module_learner(run), batch_orders([run], 20)
    ours.train(orders, 0)
    eager.train(orders, 0)
    np.testing.assert_allclose(ours.take_losses(), eager.take_losses(), rtol=1e-4)


def two_linear_layers() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8, bias=False), torch.nn.Linear(8, 10))
