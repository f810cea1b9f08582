from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from tests.support.custom_runs import Noisy, custom_run, iterations, trained
from tests.support.custom_search import X, Y, draw
from tests.support.custom_trainings import STEPS, TRAININGS, Training, adam, alternating, loss, scheduled
from tests.support.errors import raises_input_error
from tombola.engines.custom.engine import CustomRun
from tombola.engines.custom.step_counter import evaluate as evaluate_now
from tombola.engines.custom.step_counter import mark
from tombola.pruning.network_state import network_state, same_state
from tombola.runs.initial_state import interpolate
from tombola.runs.outcome import Outcome
from tombola.zoo.models.description import Trained


def accuracy(network: nn.Module) -> float:
    return float((network(X).argmax(1) == Y).float().mean())


def rude(network: Any) -> dict[str, float]:
    """Draws random numbers, trains, and changes modes, gradients and weights."""
    figures = {"accuracy": accuracy(network), "draw": draw()}
    network.train()
    with torch.enable_grad():
        loss(network).backward()
    torch.optim.SGD(network.parameters(), 0.1).step()
    network.zero_grad()
    return figures


class Sequence:
    """Returns figures one after the other, and keeps the states that it was asked of."""

    def __init__(self, *figures: Any) -> None:
        self.figures = [*figures]
        self.states: list[dict[str, torch.Tensor]] = []

    def __call__(self, network: nn.Module) -> Any:
        assert not any(module.training for module in network.modules())
        assert not torch.is_grad_enabled()
        self.states.append(network_state(network))
        return self.figures.pop(0)


@pytest.mark.parametrize("train", TRAININGS)
@pytest.mark.parametrize("every", [1, 5])
def test_evaluations_leave_the_training_as_it_is(train: Training, every: int) -> None:
    alone = trained(custom_run(), train)
    one, other = (trained(custom_run(every=e), train, rude, rude) for e in (every, 2 * STEPS))
    assert same_state(one.final, alone.final)
    assert iterations(one) == [*range(every, STEPS, every), STEPS]
    assert iterations(other) == [STEPS]
    for name in ("figure/accuracy", "figure/draw"):  # random evaluations do not depend on `every`
        assert one.curves[name][-1] == other.curves[name][-1]
    assert len(one.curves["figure/draw"].unique()) == 1


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, math.nan, math.inf]), min_size=6, max_size=6), st.booleans())
def test_the_test_is_asked_once_of_the_best_weights(values: list[float], minimize: bool) -> None:
    evaluate, test = Sequence(*({"score": v, "other": 1.0} for v in values)), Sequence(0.25)
    outcome = trained(custom_run(every=2, minimize=minimize), adam, evaluate, test)
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        assert outcome.measures.stop_iteration is None
        assert not test.states
        return
    best = (min if minimize else max)(finite)
    at = values.index(best)
    assert outcome.measures.stop_iteration == 2 * at + 2
    assert outcome.measures["validation_score_at_stop"] == best
    assert outcome.measures["validation_score"] == (values[-1] if math.isfinite(values[-1]) else None)
    assert outcome.measures["test_score_at_stop"] == 0.25
    (asked,) = test.states
    assert same_state(asked, evaluate.states[at])
    assert all((asked[name][~kept] == 0).all() for name, kept in custom_run().mask.items())


def test_iterations_are_counted_from_the_beginning_of_the_dense_training() -> None:
    trunk = custom_run(every=5).until(3)
    run = custom_run(every=5).after(trunk, begin=3)
    began = trained(trunk, adam, rude)
    outcome = trained(run, adam, rude, load_state=lambda *_, **__: began.final)
    assert iterations(outcome) == [5, 10, 3 + STEPS]
    assert outcome.measures.iterations == 3 + STEPS


@pytest.mark.parametrize("change", [{"end": 4}, {"at_mark": True}])
def test_trunks_are_not_evaluated(change: Any) -> None:
    def train(network: nn.Module) -> None:
        adam(network)
        evaluate_now()
        mark()

    outcome = trained(custom_run(every=1, **change), train, Sequence(), Sequence())
    assert list(outcome.curves) == ["iteration"]
    assert iterations(outcome) == [outcome.measures.iterations]
    assert not outcome.measures.figures


def epochs(network: nn.Module) -> None:
    """Evaluates twice at the end of each epoch, and once before the first."""
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    evaluate_now()
    for step in range(1, STEPS + 2):
        optimizer.zero_grad()
        loss(network).backward()
        optimizer.step()
        if step % 4 == 0:
            evaluate_now()
            evaluate_now()


@pytest.mark.parametrize("every", [None, 3])
def test_a_training_may_decide_itself_when_to_evaluate(every: int | None) -> None:
    calls = Sequence(0.1, 0.3, 0.9, 0.9, 0.2)
    outcome = trained(custom_run(every=every), epochs, calls)
    assert iterations(outcome) == [0, 4, 8, 12, 13]
    assert outcome.measures.stop_iteration == 8


def test_every_holds_until_the_training_decides_itself() -> None:
    def train(network: nn.Module) -> None:
        adam(network)
        evaluate_now()
        adam(network)

    assert iterations(trained(custom_run(every=5), train, rude)) == [5, 10, STEPS, 2 * STEPS]


def test_a_call_without_a_function_to_evaluate_is_refused() -> None:
    with raises_input_error("evaluate"):
        trained(custom_run(), epochs)


def test_evaluations_do_not_nest() -> None:
    def evaluate(network: nn.Module) -> float:
        evaluate_now()
        return accuracy(network)

    assert iterations(trained(custom_run(every=6), adam, evaluate)) == [6, 12]


def test_only_the_end_has_no_early_stop() -> None:
    test = Sequence({"f1": 0.5, "accuracy": 0.7})
    outcome = trained(custom_run(), adam, Sequence({"accuracy": 0.8, "loss": math.nan}), test)
    assert iterations(outcome) == [STEPS]
    assert outcome.measures.stop_iteration is None
    assert outcome.measures.figures == {
        "validation_accuracy_at_stop": 0.8,
        "test_f1_at_stop": 0.5,
        "test_accuracy_at_stop": 0.7,
        "validation_accuracy": 0.8,
    }
    assert same_state(test.states[0], outcome.final)


def test_figures_that_train_returns_are_those_of_its_end() -> None:
    def train(network: nn.Module) -> dict[str, Any]:
        adam(network)
        return {"bleu": 0.5, "note": "fine"}

    test = Sequence(0.25)
    outcome = trained(custom_run(), train, test=test)
    assert outcome.measures.figures == {
        "validation_bleu_at_stop": 0.5,
        "test_bleu_at_stop": 0.25,
        "validation_bleu": 0.5,
    }
    assert same_state(test.states[0], outcome.final)


def restoring(network: nn.Module) -> None:
    """Loads other weights after the last step, as callbacks that keep the best do."""
    before = network_state(network)
    adam(network)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_((parameter + before[name]) / 2)


@pytest.mark.parametrize(("values", "stop", "at"), [([0.1, 0.5, 0.9, 0.2], 8, 1), ([0.1, 0.2, 0.3, 0.9], 12, 3)])
def test_weights_loaded_after_the_last_step_are_evaluated_in_its_place(
    values: list[float], stop: int, at: int
) -> None:
    evaluate, test = Sequence(*values), Sequence(0.0)
    outcome = trained(custom_run(every=4), restoring, evaluate, test)
    assert iterations(outcome) == [4, 8, 12]
    assert outcome.curves["figure/figure"].tolist() == [values[0], values[1], values[3]]
    assert outcome.measures.stop_iteration == stop
    assert same_state(evaluate.states[3], outcome.final)
    assert same_state(test.states[0], evaluate.states[at])


def test_the_end_of_all_optimizers_is_evaluated() -> None:
    evaluate = Sequence(*range(8))
    outcome = trained(custom_run(every=2), alternating, evaluate)
    assert iterations(outcome) == [2, 4, 6, 8, 10, 12]
    assert same_state(evaluate.states[-1], outcome.final)


def test_exceptions_of_the_users_functions_pass_through() -> None:
    def failing(network: nn.Module) -> float:
        raise LookupError(f"{type(network).__name__} is not found")

    for functions in ((failing, None), (accuracy, failing)):
        with pytest.raises(LookupError, match="Noisy is not found"):
            trained(custom_run(every=5), adam, *functions)


def test_a_return_value_without_a_number_is_refused() -> None:
    with raises_input_error("evaluate", "None"):
        trained(custom_run(every=5), adam, lambda _: None)
    with raises_input_error("test", "'good'"):
        trained(custom_run(every=5), adam, accuracy, lambda _: "good")


def test_pruned_weights_are_checked_at_each_evaluation() -> None:
    def reviving(network: Any) -> None:
        adam(network)
        network.second.weight.data.fill_(1.0)
        evaluate_now()

    with raises_input_error("second.weight", "not zero"):
        trained(custom_run(), reviving, accuracy)

    def swapping(network: Any) -> float:
        network.first.weight.data.fill_(1.0)
        return 1.0

    with raises_input_error("first.weight", "not zero"):
        trained(custom_run(every=5), adam, swapping)


def test_a_training_that_diverged_has_no_figures() -> None:
    def diverging(network: Any) -> None:
        adam(network)
        with torch.no_grad():
            network.output.bias.fill_(math.nan)

    outcome = trained(custom_run(every=5), diverging, accuracy, Sequence())
    assert outcome.measures.diverged
    assert outcome.measures.stop_iteration is None
    assert not outcome.measures.figures
    assert iterations(outcome) == [5, 10, STEPS]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_weights_between_two_trainings_are_evaluated_only(share: float) -> None:
    outcomes: dict[str, Outcome] = {"one": trained(custom_run(), adam), "other": trained(custom_run(), scheduled)}
    between = Trained(run="one", towards="other", share=share)
    run = custom_run(every=5, begin=STEPS, end=STEPS)
    run = run.model_copy(update={"start": run.start.model_copy(update={"trained": between})})
    evaluate, test = Sequence(0.5), Sequence(0.25)
    states = {key: outcome.final for key, outcome in outcomes.items()}
    outcome = trained(run, Sequence(), evaluate, test, load_state=lambda key, **_: states[key])
    expected = interpolate(states["one"], states["other"], share)
    assert same_state(evaluate.states[0], expected)
    assert same_state(test.states[0], expected)
    assert not outcome.final
    assert (iterations(outcome), outcome.measures.iterations) == ([STEPS], STEPS)
    assert outcome.measures["test_figure_at_stop"] == 0.25


def test_wrapped_and_compiled_networks_are_evaluated_as_they_were_given() -> None:
    seen = []

    def train(network: nn.Module) -> None:
        compiled: Any = torch.compile(network, backend="eager")
        adam(compiled)

    def evaluate(network: nn.Module) -> float:
        seen.append(type(network))
        return accuracy(network)

    torch.compiler.reset()
    outcome = trained(custom_run(every=5), train, evaluate)
    assert iterations(outcome) == [5, 10, STEPS]
    assert set(seen) == {Noisy}


def test_layers_that_are_wrapped_during_training_keep_their_best_weights() -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    def train(network: Any) -> None:
        adam(network)
        network.output = checkpoint_wrapper(network.output)  # type: ignore[no-untyped-call]
        adam(network)

    best: list[torch.Tensor] = []

    def evaluate(network: Any) -> float:
        best.append(next(network.output.parameters()).detach().clone())
        return -len(best)

    def test(network: Any) -> float:
        assert torch.equal(next(network.output.parameters()), best[0])
        return 1.0

    outcome = trained(custom_run(every=5), train, evaluate, test)
    assert outcome.measures.stop_iteration == 5
    assert outcome.measures["test_figure_at_stop"] == 1.0


DEFAULT: dict[str, Any] = {"every": None, "minimize": None, "stop_on": None}


def test_options_at_their_default_are_not_part_of_the_key() -> None:
    run = custom_run()
    assert custom_run(**DEFAULT).key == run.key
    others = [custom_run(**{name: value}) for name, value in [("every", 5), ("minimize", False), ("stop_on", "loss")]]
    assert len({run.key, *(other.key for other in others)}) == 4


@pytest.mark.parametrize("wrong", [{"every": 0}, {"every": 1.5}, {"every": True}, {"minimize": [1]}, {"stop_on": 1}])
def test_invalid_options_are_refused(wrong: dict[str, Any]) -> None:
    run = custom_run()
    with pytest.raises(ValidationError):
        CustomRun(start=run.start, mask=run.mask, seed=3, procedure="p", **wrong)
