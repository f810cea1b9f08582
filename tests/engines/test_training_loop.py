"""The training loop with a learner whose losses are given."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.datasets import examples_in_memory
from tests.support.several_runs import Clock, TimedLearner
from tests.support.training import dense_run, no_checkpoint
from tombola.engines import training_loop
from tombola.engines.history import Evaluation
from tombola.engines.training_loop import SplitName, TrainingLoop, run_to_end
from tombola.pruning.mask import State
from tombola.runs.outcome import Outcome
from tombola.utils.seeds import Purpose, sequence
from tombola.zoo import batches


class GivenLosses:
    """A learner of one run whose validation losses are given by iteration; its accuracies identify its weights."""

    device = torch.device("cpu")

    def __init__(self, losses: dict[int, float]) -> None:
        self.losses = losses
        self.iteration = self.best = 0
        self.evaluated: list[tuple[SplitName, int]] = []

    def train(self, orders: Tensor, first: int) -> None:
        assert first == self.iteration
        self.iteration += orders.shape[1]

    def take_losses(self) -> list[float]:
        return [1.0]

    def evaluate(self, split_name: SplitName, best: bool = False) -> list[Evaluation]:
        iteration = self.best if best else self.iteration
        self.evaluated.append((split_name, iteration))
        loss = self.losses[iteration] if split_name == "validation" else 1.0
        return [Evaluation(loss, iteration / 1000)]

    def keep_best(self, improved: Sequence[bool]) -> None:
        assert improved == [True]
        self.best = self.iteration

    def weights(self) -> list[State]:
        return [{"iteration": torch.tensor(self.iteration)}]

    def optimizer_states(self) -> list[State]:
        return [{}]

    def load_optimizer_states(self, states: Sequence[State]) -> None:  # noqa: ARG002
        raise AssertionError

    def state_dict(self) -> dict[str, Tensor]:
        return {"iteration": torch.tensor(self.iteration), "best": torch.tensor(self.best)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.iteration, self.best = int(state["iteration"]), int(state["best"])


def run_with(learner: GivenLosses, **training: object) -> Outcome:
    run = dense_run(training__length="40it", **{f"training__{name}": value for name, value in training.items()})
    (outcome,) = run_to_end(TrainingLoop([run], learner, examples_in_memory(1000)), no_checkpoint(), "given")
    return outcome


@pytest.mark.parametrize(
    ("losses", "stop"),
    [([0.5, 0.3, 0.4, 0.6], 20), ([0.5, 0.4, 0.3, 0.2], 40), ([0.1, 0.2, 0.3, 0.4], 10), ([0.5, 0.3, 0.3, 0.4], 20)],
)
def test_the_early_stop_is_the_first_minimum_of_the_validation_loss(losses: list[float], stop: int) -> None:
    learner = GivenLosses(dict(zip((10, 20, 30, 40), losses, strict=True)))
    measures = run_with(learner).measures
    assert measures.stop_iteration == stop
    assert measures["validation_loss_at_stop"] == min(losses)
    assert measures["validation_accuracy_at_stop"] == measures["train_accuracy_at_stop"] == stop / 1000
    assert measures["test_accuracy_at_stop"] == stop / 1000  # of the weights at the early stop
    assert measures["test_accuracy"] == measures["train_accuracy"] == 0.04  # of the last weights


def test_the_test_split_is_evaluated_at_the_end_only_unless_asked_for() -> None:
    losses = {10: 0.5, 20: 0.3, 30: 0.4, 40: 0.6}
    learner = GivenLosses(losses)
    outcome = run_with(learner)
    assert [iteration for split, iteration in learner.evaluated if split == "test"] == [40, 20]
    assert "test_loss" not in outcome.curves
    with_curve = run_with(GivenLosses(losses), test_curve=True)
    assert with_curve.curves["test_accuracy"].tolist() == [0.01, 0.02, 0.03, 0.04]
    assert with_curve.measures == outcome.measures


def test_the_last_iteration_is_evaluated_too() -> None:
    outcome = run_with(GivenLosses({15: 0.5, 30: 0.4, 40: 0.3}), evaluate_every="15it")
    assert outcome.curves["iteration"].tolist() == [15, 30, 40]
    assert int(outcome.final["iteration"]) == 40


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run_as_diverged(loss: float) -> None:
    outcome = run_with(GivenLosses({10: 0.5, 20: loss}))
    assert outcome.measures.diverged
    assert outcome.measures.iterations == 20
    assert outcome.measures["test_accuracy"] is None
    assert outcome.curves["validation_loss"].tolist() == [0.5]


SECONDS = 1 / 128
"""Of an iteration; sums of it are exact."""


@pytest.mark.parametrize(
    ("device", "first"),
    [("cpu", [10, 20, 40, 80, 128, 42]), ("cuda", [10] * 32)],  # the time of a launch says nothing
)
def test_about_a_second_is_trained_at_once(device: str, first: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(training_loop, "time", clock)
    learner = TimedLearner(1, clock, device, SECONDS)
    run = dense_run(training__length="960it", training__evaluate_every="320it")
    training = TrainingLoop([run], learner, examples_in_memory(1000))
    while not training.finished:
        training.advance()
        if len(learner.steps) == 3:
            training.snapshot()
            clock.now += 1000.0  # to write it is no training
    assert learner.steps == first + 2 * [128, 128, 64]
    (outcome,) = training.outcomes("timed")
    assert outcome.seconds == 960 * SECONDS


def test_each_permutation_is_drawn_once_however_many_runs_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Counter[tuple[int, ...]]()

    def counted(*place: Any) -> Any:
        drawn[place] += 1
        return sequence(*place)

    monkeypatch.setattr(batches, "sequence", counted)
    dense = dense_run(training__length="120it", training__batch_size=10)
    runs = [dense.model_copy(update={"seed": seed // 2}) for seed in range(400)]
    learner = TimedLearner(400, Clock())
    training = TrainingLoop(runs, learner, examples_in_memory(300))
    while not training.finished:
        training.advance()
    assert len(learner.steps) > 10
    assert drawn == {(seed, Purpose.ORDER, epoch): 1 for seed in range(200) for epoch in range(4)}


def test_a_checkpoint_has_no_values_for_each_evaluation_or_run_outside_its_tensors() -> None:
    training = TrainingLoop([dense_run()] * 3, TimedLearner(3, Clock()), examples_in_memory(300))
    training.advance()
    _, about = training.snapshot()
    assert all(isinstance(value, int | float) for value in about.values())


def test_the_same_weights_are_evaluated_once_on_each_split() -> None:
    learner = GivenLosses({10: 0.5, 20: 0.4, 30: 0.3, 40: 0.2})
    run_with(learner, test_curve=True)
    assert max(Counter(learner.evaluated).values()) == 1
    untrained = GivenLosses({0: 0.5})
    run = dense_run(training__length="40it").until(0)
    run_to_end(TrainingLoop([run], untrained, examples_in_memory(1000)), no_checkpoint(), "given")
    assert sorted(untrained.evaluated) == [("test", 0), ("train", 0), ("validation", 0)]
