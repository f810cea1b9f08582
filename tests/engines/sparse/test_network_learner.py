"""Whole networks trained in compiled loops, beside plain PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tests.support.networks import MLP_WITH_DROPOUT
from tests.support.outcomes import random_mask
from tests.support.training import batch_orders, dense_run, module_learner, pruned_run
from tombola.engines.sparse.compiled_plan import compiled_plan
from tombola.engines.sparse.network_learner import NetworkLearner
from tombola.engines.sparse.product_tables import DENSE_ABOVE
from tombola.kernels.training import tables
from tombola.runs.run import Run
from tombola.zoo.datasets import prepare
from tombola.zoo.models import build


def network_learner(run: Run) -> NetworkLearner:
    network = build(run.start)
    plan = compiled_plan(network, run.start.network.inputs)
    assert not isinstance(plan, str), plan
    return NetworkLearner(plan, network.state_dict(), run, prepare(run.data))


def dropouts(ours: NetworkLearner) -> list[np.ndarray]:
    """The factors of each dropout in the last step, of shape (units, examples): NaN where the unit was zero."""
    work, factors = ours.workspace, []
    for step in ours.layout.structure.steps:
        if step["kind"] == tables.DROPOUT:
            before, after = (
                work.activations[step[place] * work.n : (step[place] + step["rows"]) * work.n].reshape(-1, work.n)
                for place in ("x", "y")
            )
            with np.errstate(invalid="ignore"):
                factors.append(after / before)
    return factors


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
    ours, eager, orders = network_learner(run), module_learner(run), batch_orders([run], 20)
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
    ours = network_learner(run)
    sizes = {name: slot.end - slot.begin for name, slot in ours.layout.slots.items()}
    weights = sum(size for name, size in sizes.items() if name.endswith("weight"))
    assert weights == (run.mask.size if density > DENSE_ABOVE else run.mask.count)
    current = ours.current
    for array in (current.parameters, current.first, current.second, ours.best["parameters"]):
        assert array.size < sum(sizes.values()) + 16 * len(sizes)


def test_training_from_a_state_dict_gives_the_same_bits() -> None:
    run = pruned_run(0.3, model=MLP_WITH_DROPOUT)
    ours = network_learner(run)
    ours.train(batch_orders([run], 13), 0)
    ours.keep_best([True])
    ours.train(batch_orders([run], 4, 13), 13)
    state = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    other = network_learner(run)
    other.load_state_dict(state)
    for learner in (ours, other):
        learner.train(batch_orders([run], 10, 17), 17)
    assert ours.take_losses() == other.take_losses()
    (a,), (b,) = ours.weights(), other.weights()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert ours.evaluate("test", best=True) == other.evaluate("test", best=True)


def test_the_best_weights_are_those_of_keep_best() -> None:
    run = dense_run()
    ours = network_learner(run)
    ours.train(batch_orders([run], 10), 0)
    then = ours.evaluate("validation")
    ours.keep_best([True])
    ours.train(batch_orders([run], 10, 10), 10)
    assert ours.evaluate("validation") != then
    assert ours.evaluate("validation", best=True) == then


def learner_with_options(run: Run, **changes: Any) -> NetworkLearner:
    ours = network_learner(run)
    ours.options = ours.options._replace(**changes)
    return ours


def test_dropout_has_its_probability_and_is_not_used_in_evaluation() -> None:
    run = dense_run(model={"name": "mlp", "widths": [400, 300], "dropout": 0.3})
    ours = network_learner(run)
    before = ours.evaluate("test")
    assert before == ours.evaluate("test")
    ours.train(batch_orders([run], 1), 0)
    hidden = np.concatenate(dropouts(ours))
    drawn = hidden[np.isfinite(hidden)]
    np.testing.assert_allclose(np.unique(drawn.round(3)), [0, np.float32(1 / 0.7).round(3)])
    assert (drawn == 0).mean() == pytest.approx(0.3, abs=0.015)
    by_layer = list(dropouts(ours))
    assert not np.array_equal(by_layer[0][:300], by_layer[1], equal_nan=True)


def test_dropout_differs_between_iterations_and_seeds() -> None:
    run = dense_run(model={"name": "mlp", "widths": [50], "dropout": 0.5})
    drawn = []
    for noise, iterations in ((1, 1), (1, 2), (2, 1), (1, 1)):
        ours = learner_with_options(run, noise=noise)
        ours.train(batch_orders([run], iterations), 0)
        drawn.append(dropouts(ours)[0])
    first, later, other, again = drawn
    assert np.array_equal(first, again, equal_nan=True)
    for some in (later, other):
        both = np.isfinite(some) & np.isfinite(first)
        assert ((some[both] == 0) == (first[both] == 0)).mean() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_gradients_with_dropout_are_those_of_the_thinned_network(density: float) -> None:
    run = dense_run(
        model={"name": "mlp", "widths": [30, 20], "dropout": 0.4},
        training={"optimizer": "sgd", "lr": 1.0, "batch_size": 40, "length": "1it"},
    )
    run = run.masked(random_mask(run, density))
    ours = network_learner(run)
    (before,) = ours.weights()
    ours.train(batch_orders([run], 1), 0)
    (after,) = ours.weights()
    factors = [torch.from_numpy(np.nan_to_num(units[:, :40].T)) for units in dropouts(ours)]
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


@pytest.mark.parametrize(
    ("model", "training"),
    [
        ({"name": "conv-2", "width": 0.1, "dropout": 0.0}, {"optimizer": "adam", "lr": 1e-3}),
        ({"name": "resnet-20"}, {"optimizer": "sgd", "lr": 0.02, "momentum": 0.9, "weight_decay": 1e-3}),
        (
            {"name": "resnet-20"},
            {"optimizer": "sgd", "lr": 0.02, "weight_decay": 1e-2, "decay_normalisation": False},
        ),
        ({"name": "lenet-5"}, {"optimizer": "adam", "lr": 1e-3}),
    ],
)
@pytest.mark.parametrize("density", [1.0, 0.85, 0.2])
def test_networks_of_the_zoo_train_as_with_the_eager_engine(
    model: dict[str, Any], training: dict[str, Any], density: float
) -> None:
    run = pruned_run(density, model=model, training={"batch_size": 37, "length": "3it", **training})
    ours, eager, orders = network_learner(run), module_learner(run), batch_orders([run], 3)
    before = build(run.start).state_dict()
    ours.train(orders, 0)
    eager.train(orders, 0)
    np.testing.assert_allclose(ours.take_losses(), eager.take_losses(), rtol=1e-4)
    (state,), (expected,) = ours.weights(), eager.weights()
    assert list(state) == list(expected)
    for name, kept in run.mask.items():
        assert (state[name][~kept] == 0).all()
        changes = [(weights[name] - before[name] * kept).norm() for weights in (state, expected)]
        difference = (state[name] - expected[name]).norm()
        assert difference <= 0.05 * max(changes)  # rounding turns single ReLUs on or off
    for name in state:
        if name.endswith("num_batches_tracked"):
            assert state[name] == expected[name] == 3
        elif "running" in name:
            torch.testing.assert_close(state[name], expected[name], rtol=1e-3, atol=1e-4)
    for part in ("train", "validation", "test"):
        np.testing.assert_allclose(ours.evaluate(part), eager.evaluate(part), rtol=1e-2, atol=5e-3)


def test_augmented_images_are_those_of_the_eager_engine() -> None:
    data = {"name": "digits", "validation": 200, "scale": "standard", "flip": True, "crop": 2}
    run = pruned_run(0.5, model={"name": "conv-2", "width": 0.1}, data=data)
    ours, eager, orders = network_learner(run), module_learner(run), batch_orders([run], 20)
    ours.train(orders, 0)
    eager.train(orders, 0)
    np.testing.assert_allclose(ours.take_losses(), eager.take_losses(), rtol=1e-4)


def test_a_network_with_batch_norm_resumes_with_the_same_bits() -> None:
    data = {"name": "digits", "validation": 200, "flip": True, "crop": 1}
    run = pruned_run(0.3, model={"name": "resnet-20"}, data=data)
    ours = network_learner(run)
    ours.train(batch_orders([run], 3), 0)
    ours.keep_best([True])
    ours.train(batch_orders([run], 2, 3), 3)
    state = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    other = network_learner(run)
    other.load_state_dict(state)
    for learner in (ours, other):
        learner.train(batch_orders([run], 2, 5), 5)
    (a,), (b,) = ours.weights(), other.weights()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert ours.take_losses() == other.take_losses()
    assert ours.evaluate("test", best=True) == other.evaluate("test", best=True) != ours.evaluate("test")
