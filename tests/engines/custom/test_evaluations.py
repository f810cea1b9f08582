"""Evaluations during a training by the user's own function."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.support.custom_search import X, Y, small, train
from tests.support.errors import raises_input_error
from tombola.engines.custom.engine import CustomEngine, CustomRun
from tombola.engines.custom.evaluations import Evaluations, evaluation_mode
from tombola.engines.custom.model import CustomModel
from tombola.engines.custom.step_counter import evaluate as evaluate_now
from tombola.pruning.mask import Mask, State
from tombola.runs.outcome import Outcome
from tombola.runs.store import Checkpoint
from tombola.zoo.models.description import Trained


class Dropping(nn.Module):
    """With batch norm and dropout, which draw and change in training mode only."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 2)
        )

    def forward(self, x: torch.Tensor) -> Any:
        return self.layers(x)


def accuracy(network: nn.Module) -> float:
    return float((network(X).argmax(1) == Y).float().mean())


def run_of(model: CustomModel, **options: Any) -> CustomRun:
    start = model.start(3)
    mask = Mask.full(model.initial_network(start))
    return CustomRun(start=start, mask=mask, seed=5, procedure="", **options)


def outcome_of(
    function: Any, evaluate: Any = accuracy, test: Any = None, make: Any = Dropping, **options: Any
) -> Outcome:
    model = CustomModel(make)
    engine = CustomEngine(model, function, evaluate, test)
    (outcome,) = engine.train([run_of(model, **options)], Checkpoint(Path("nowhere")))
    return outcome


def drawing(network: nn.Module) -> float:
    """An evaluation that draws from every global random state."""
    torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
    return accuracy(network)


@pytest.mark.parametrize("every", [1, 7, 30, 100])
def test_training_does_not_notice_evaluations(every: int) -> None:
    plain, watched = outcome_of(train), outcome_of(train, drawing, every=every)
    assert all(torch.equal(tensor, watched.final[name]) for name, tensor in plain.final.items())
    steps = [*range(every, 31, every)]
    assert watched.curves["iteration"].tolist() == (steps if steps and steps[-1] == 30 else [*steps, 30])
    assert float(watched.curves["figure/figure"][-1]) == float(plain.curves["figure/figure"][-1])


def test_early_stop_is_the_first_best_evaluation_and_its_weights_are_tested() -> None:
    calls: list[State] = []

    def remember(network: nn.Module) -> float:
        assert not network.training
        assert not torch.is_grad_enabled()
        calls.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return [0.5, 0.9, 0.7, 0.9, 0.6, 0.1][len(calls) - 1]

    tested: list[State] = []

    def test(network: nn.Module) -> float:
        tested.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return 0.25

    outcome = outcome_of(train, remember, test, every=5)
    assert outcome.measures.stop_iteration == 10
    assert outcome.measures.iterations == 30
    assert outcome.measures.figures == {
        "validation_figure_at_stop": 0.9,
        "test_figure_at_stop": 0.25,
        "validation_figure": 0.1,
    }
    (state,) = tested
    assert all(torch.equal(tensor, calls[1][name]) for name, tensor in state.items())
    assert all(torch.equal(tensor, calls[-1][name]) for name, tensor in outcome.final.items())


def test_without_every_the_end_is_all_there_is() -> None:
    outcome = outcome_of(train, lambda m: {"accuracy": accuracy(m), "loss": 0.5}, lambda _: {"accuracy": 0.75})
    measures = outcome.measures
    assert measures.stop_iteration is None
    assert measures["validation_accuracy_at_stop"] == measures["validation_accuracy"]
    assert measures["test_accuracy_at_stop"] == 0.75
    assert outcome.curves["iteration"].tolist() == [30]


def test_the_training_may_decide_itself_when_it_is_evaluated() -> None:
    def epochs(network: nn.Module) -> None:
        for _ in range(2):
            train(network, 15)
            evaluate_now()
            evaluate_now()  # once at each iteration

    evaluate_now()  # nothing happens outside of a search
    assert outcome_of(epochs).curves["iteration"].tolist() == [15, 30]
    assert outcome_of(epochs, every=6).curves["iteration"].tolist() == [6, 12, 15, 30]
    assert outcome_of(epochs).measures.stop_iteration in (15, 30)


def test_trunks_are_not_evaluated() -> None:
    outcome = outcome_of(train, lambda _: pytest.fail("it was evaluated"), every=2, end=7)
    assert outcome.curves["iteration"].tolist() == [7]
    assert not outcome.measures.figures


def test_steps_are_counted_from_the_dense_networks_first() -> None:
    model = CustomModel(small)
    start = {name: tensor.clone() for name, tensor in small().state_dict().items()}
    run = run_of(model, every=10)
    run = run.after(run, begin=7)
    engine = CustomEngine(model, lambda m: train(m, begin=7), accuracy)
    (outcome,) = engine.train([run], Checkpoint(Path("nowhere")), lambda key, /, *, optimizer=False: start)  # noqa: ARG005
    assert outcome.curves["iteration"].tolist() == [10, 20, 30]


def test_points_between_two_trainings_are_evaluated_and_not_trained() -> None:
    model = CustomModel(small)
    ends = {"one": small(0).state_dict(), "two": small(1).state_dict()}
    dense = run_of(model)
    start = dense.start.model_copy(update={"trained": Trained(run="one", towards="two", share=0.25)})
    run = dense.model_copy(update={"start": start, "begin": 30, "end": 30})
    seen: list[float] = []

    def first_bias(network: Any) -> float:
        seen.append(float(network.fc1.bias[0]))
        return 1.0

    engine = CustomEngine(model, lambda _: pytest.fail("it was trained"), first_bias)
    (outcome,) = engine.train([run], Checkpoint(Path("nowhere")), lambda key, /, *, optimizer=False: ends[key])  # noqa: ARG005
    one, two = (float(end["fc1.bias"][0]) for end in ends.values())
    assert seen == [pytest.approx(0.75 * one + 0.25 * two)]
    assert outcome.final == {}
    assert outcome.measures.figures["validation_figure"] == 1.0


@given(
    st.lists(st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=12),
    st.booleans(),
)
def test_the_early_stop_is_the_first_of_the_best_finite_values(values: list[float], minimize: bool) -> None:
    evaluations = Evaluations(small(), None, 0, minimize)
    for iteration, value in enumerate(values):
        evaluations.add(iteration, {"figure": value})
    finite = [value for value in values if math.isfinite(value)]
    best = (min if minimize else max)(finite) if finite else None
    assert evaluations.best == (None if best is None else values.index(best))


def test_early_stop_may_be_by_another_figure_than_the_judged_one() -> None:
    evaluations = Evaluations(small(), None, 0, stop_on="loss")
    for iteration, loss in enumerate((0.9, 0.2, 0.4)):
        evaluations.add(iteration, {"accuracy": iteration / 10, "loss": loss})
    assert evaluations.best == 1
    with raises_input_error('"los"', '"loss"'):
        Evaluations(small(), None, 0, stop_on="los").add(0, {"accuracy": 0.5, "loss": 0.1})


def test_missing_figures_are_nan_in_curves() -> None:
    evaluations = Evaluations(small(), None, 0)
    evaluations.add(1, {"a": 1.0})
    evaluations.add(2, {"a": 2.0, "b": 3.0})
    curves = evaluations.curves()
    assert curves["figure/a"].tolist() == [1.0, 2.0]
    assert math.isnan(curves["figure/b"][0])
    assert curves["figure/b"][1] == 3.0


def test_modes_and_contexts_are_as_they_were() -> None:
    network = Dropping()
    network.layers[1].eval()  # frozen on purpose
    before = [module.training for module in network.modules()]

    def failing() -> None:
        with evaluation_mode(network):
            assert not torch.is_autocast_enabled("cpu")
            assert not any(module.training for module in network.modules())
            raise ZeroDivisionError

    with torch.autocast("cpu"), pytest.raises(ZeroDivisionError):
        failing()
    assert [module.training for module in network.modules()] == before
    assert torch.is_grad_enabled()


def test_evaluating_without_a_function_is_an_error() -> None:
    def asking(network: nn.Module) -> None:
        train(network)
        evaluate_now()

    with raises_input_error("tombola.evaluate()", "evaluate"):
        outcome_of(asking, None)


def test_the_order_of_figures_and_old_outcomes_survive_the_store() -> None:
    outcome = outcome_of(train, lambda _: {"z": 1.0, "a": 0.5})
    mask = Mask({})
    again = Outcome.from_tensors(*outcome.to_tensors(mask))
    assert [*again.measures.figures] == [*outcome.measures.figures]
    tensors, about = outcome.to_tensors(mask)
    about["measures"] = {"diverged": False, "iterations": 30}  # as before figures were measured
    del about["figures"]
    old = Outcome.from_tensors(tensors, about)
    assert old.measures == outcome.measures


def test_options_at_their_defaults_do_not_change_keys() -> None:
    model = CustomModel(small)
    plain, every = run_of(model), run_of(model, every=10)
    assert "every" not in plain.description
    assert "minimize" not in plain.description
    assert "stop_on" not in plain.description
    assert plain.key != every.key
