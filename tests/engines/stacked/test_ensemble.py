from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.networks import BATCH_NORM, MLP_WITH_DROPOUT, TIED_WEIGHTS
from tests.support.training import CPU, batch_orders, dense_run, ensemble_learner, module_learner, variants
from tombola.engines.stacked.ensemble import SharedExamples
from tombola.runs.run import Run
from tombola.zoo.datasets import prepare
from tombola.zoo.datasets.description import Data


def assert_the_stack_follows_eager(runs: Sequence[Run], iterations: int = 20) -> None:
    """Losses of each iteration, final weights and scores are equal to rounding; pruned weights stay zero."""
    stack, learners = ensemble_learner(runs), [module_learner(run) for run in runs]
    orders = batch_orders(runs, iterations)
    for n in range(iterations):
        stack.train(orders[:, n : n + 1], n)
        for index, learner in enumerate(learners):
            learner.train(orders[index : index + 1, n : n + 1], n)
        expected = [loss for learner in learners for loss in learner.take_losses()]
        np.testing.assert_allclose(stack.take_losses(), expected, rtol=1e-3, atol=1e-5)
        for index, run in enumerate(runs):
            for name, kept in run.mask.items():
                assert (stack.parameters[name][index][~kept] == 0).all()
    for state, learner in zip(stack.weights(), learners, strict=True):
        (expected_state,) = learner.weights()
        assert list(state) == list(expected_state)
        for name, tensor in state.items():
            assert tensor.dtype == expected_state[name].dtype
            torch.testing.assert_close(tensor, expected_state[name], rtol=1e-2, atol=1e-4)
    for score, learner in zip(stack.evaluate("validation"), learners, strict=True):
        (expected_score,) = learner.evaluate("validation")
        assert score.loss == pytest.approx(expected_score.loss, rel=1e-3)
        assert score.accuracy == pytest.approx(expected_score.accuracy, abs=0.011)  # two of 200 examples


@settings(max_examples=12, deadline=None)
@given(
    widths=st.lists(st.integers(1, 24), max_size=3),
    optimizer=st.sampled_from(["adam", "sgd"]),
    momentum=st.floats(0, 0.95),
    weight_decay=st.sampled_from([0.0, 1e-3, 0.1]),
    lr=st.sampled_from([1e-3, 1e-2]),
    batch_size=st.integers(1, 70),
    density=st.floats(0.05, 1.0),
    size=st.integers(1, 5),
)
def test_every_run_of_a_stack_follows_the_eager_engine(
    widths: list[int],
    optimizer: str,
    momentum: float,
    weight_decay: float,
    lr: float,
    batch_size: int,
    density: float,
    size: int,
) -> None:
    run = dense_run(
        model={"name": "mlp", "widths": widths},
        training__optimizer=optimizer,
        training__momentum=momentum if optimizer == "sgd" else 0.0,
        training__weight_decay=weight_decay,
        training__lr=lr,
        training__batch_size=batch_size,
    )
    assert_the_stack_follows_eager(variants(run, size, density))


@pytest.mark.parametrize(
    "changes",
    [
        {"model": BATCH_NORM},  # with its running statistics
        {"model": TIED_WEIGHTS, "training__weight_decay": 0.01},
        {"data__scale": "standard"},  # inputs that differ between splits
    ],
)
def test_other_networks_and_inputs_follow_it_too(changes: dict[str, Any]) -> None:
    assert_the_stack_follows_eager(variants(dense_run(**changes), 3))


def test_each_run_has_its_own_best_weights() -> None:
    runs = variants(dense_run(), 3)
    learner = ensemble_learner(runs)
    at_first = learner.evaluate("validation")
    learner.train(batch_orders(runs, 30), 0)
    learner.keep_best([True, False, True])
    now, best = learner.evaluate("validation"), learner.evaluate("validation", best=True)
    assert best == [now[0], at_first[1], now[2]]
    assert now[1] != at_first[1]


@pytest.mark.parametrize("size", [1, 7, 200])
def test_the_evaluation_batch_size_does_not_change_scores(size: int) -> None:
    learner = ensemble_learner(variants(dense_run(model=BATCH_NORM), 2))
    whole = learner.evaluate("validation")
    learner.evaluation_batch_size = size
    for score, expected in zip(learner.evaluate("validation"), whole, strict=True):
        assert score == pytest.approx(expected, rel=1e-5)


def test_there_is_no_dropout_in_evaluation() -> None:
    runs = variants(dense_run(model=MLP_WITH_DROPOUT), 2)
    learner = ensemble_learner(runs)
    learner.train(batch_orders(runs, 3), 0)
    assert learner.evaluate("test") == learner.evaluate("test")


def data(seed: int, **changes: object) -> Data:
    run = dense_run(**{f"data__{name}": value for name, value in changes.items()})
    return run.data.model_copy(update={"seed": seed})


@pytest.mark.parametrize("changes", [{}, {"scale": "standard"}, {"scale": "standard", "label_noise": 0.2}])
def test_a_batch_contains_the_examples_of_each_run(changes: dict[str, object]) -> None:
    sets = [prepare(data(seed, **changes)).train for seed in (1, 2, 1)]
    examples = SharedExamples.of(sets, CPU)
    order = torch.tensor([[3, 0, 7], [1, 1, 2], [0, 5, 4]])
    x, y = examples.batch(examples.rows.gather(1, order))
    for run, own in enumerate(sets):
        expected_x, expected_y = own[order[run]]
        assert torch.equal(x[run], expected_x)
        assert torch.equal(y[run], expected_y)


def test_arrays_that_runs_share_are_stored_once() -> None:
    one, two = (prepare(data(seed, label_noise=0.5)) for seed in (1, 2))
    train = SharedExamples.of([one.train, two.train, one.train], CPU)
    assert train.x.data_ptr() == one.train.x.data_ptr() == two.train.x.data_ptr()
    assert len(train.y) == len(one.train.y) + len(two.train.y)  # labels with noise differ
    validation = SharedExamples.of([one.validation, two.validation, one.validation], CPU)
    assert len(validation.x) == 400


def test_a_learner_is_freed_without_the_garbage_collector() -> None:
    learner = ensemble_learner(variants(dense_run(model=BATCH_NORM), 2))
    learner.train(batch_orders(variants(dense_run(), 2), 2), 0)
    learner.evaluate("validation")
    tensors = [weakref.ref(learner), *map(weakref.ref, [*learner.parameters.values(), *learner.best.values()])]
    gc.disable()
    try:
        del learner
        assert [reference() for reference in tensors] == [None] * len(tensors)
    finally:
        gc.enable()


class Copies(TorchDispatchMode):
    """Counts the numbers that are copied."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.copy_.default, torch.ops.aten.clone.default):
            self.numbers += args[0].numel()
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_no_gradient_is_copied(optimizer: str) -> None:
    runs = variants(dense_run(training__optimizer=optimizer), 3)
    learner = ensemble_learner(runs)
    orders = batch_orders(runs, 2)
    learner.train(orders[:, :1], 0)  # it makes the optimizer's state
    with Copies() as copies:
        learner.train(orders[:, 1:], 1)
    assert copies.numbers <= 2 * orders[:, 1:].numel()  # the order of the examples only


@pytest.mark.parametrize("changes", [{}, {"training__optimizer": "sgd", "training__momentum": 0.9}])
def test_optimizer_states_have_the_strides_of_their_weights(changes: dict[str, Any]) -> None:
    runs = variants(dense_run(**changes), 3)
    learner, orders = ensemble_learner(runs), batch_orders(runs, 6)
    learner.train(orders[:, :3], 0)
    resumed = [ensemble_learner(runs), ensemble_learner(runs)]
    resumed[0].load_state_dict(learner.state_dict())
    resumed[1].load_state_dict(learner.state_dict())
    resumed[1].load_optimizer_states(learner.optimizer_states())
    for other in (learner, *resumed):
        other.train(orders[:, 3:], 3)
        for parameter, state in other.optimizer.state.items():
            strides = {value.stride() for value in state.values() if value is not None and value.dim()}
            assert strides == {parameter.stride()}
        assert all(map(torch.equal, other.parameters.values(), learner.parameters.values()))
