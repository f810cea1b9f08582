"""The training loop of all engines: iterations, evaluations, checkpoints, outcomes.

Each engine has a `Learner`, which holds the weights of one or more runs and does the arithmetic.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from tombola.engines.history import Evaluation, History
from tombola.pruning.mask import State
from tombola.runs.checkpoint import Checkpoint
from tombola.runs.initial_state import StateLoader, initial_optimizer_state, no_stored_states
from tombola.runs.outcome import Outcome, without_pruned
from tombola.runs.run import Run
from tombola.runs.sparse_state import strip_prefix
from tombola.utils.workers import raise_if_cancelled
from tombola.zoo.datasets.example_set import SplitExamples

SplitName = Literal["train", "validation", "test"]

MAX_STEPS = 1000
"""Iterations between two chances to save a checkpoint, at most."""

MAX_SECONDS = 1.0
"""The same in seconds, approximately."""


@dataclass(frozen=True)
class Capacity:
    """Limits of an engine for a run and all others of the same `Run.shape`."""

    max_runs: int = 1
    """How many of them it can train as one."""
    threads: bool = False
    """It releases the interpreter's lock and uses no global state, so several can train in threads of one process."""


class Learner(Protocol):
    """Trains and evaluates one or more runs of one shape. Lists are in the order of the runs."""

    device: torch.device
    """Where it trains."""

    def train(self, orders: Tensor, first: int) -> None:
        """Train on batches: indices of training examples, int64 of shape (runs, iterations, batch). `first` is the
        number of the first iteration. On an accelerator it returns without waiting for the device; every other
        method that returns numbers or tensors waits."""

    def take_losses(self) -> list[float]:
        """The sum of the training losses since the last call."""

    def evaluate(self, split_name: SplitName, best: bool = False) -> list[Evaluation]:
        """Evaluate the networks, in evaluation mode, with their current or their best weights."""

    def keep_best(self, improved: Sequence[bool]) -> None:
        """Keep the current weights of the runs that improved as their best."""

    def weights(self) -> list[State]:
        """Each network's current `state_dict`, on the CPU."""

    def optimizer_states(self) -> list[State]:
        """Each run's optimizer state, as in `Outcome.optimizer`; arbitrary for pruned weights."""

    def load_optimizer_states(self, states: Sequence[State]) -> None:
        """Continue with the optimizer states of earlier runs. Called before any training."""

    def state_dict(self) -> dict[str, Tensor]:
        """Everything a checkpoint needs: weights, best weights, optimizer, random state, sums of losses. They are
        copies on the host, which further training does not change."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""


class TrainingLoop:
    """Trains `runs`, which differ only in starts, masks, splits and seeds. `load_state` loads the optimizer states
    that they continue from."""

    def __init__(
        self,
        runs: Sequence[Run],
        learner: Learner,
        examples: SplitExamples,
        load_state: StateLoader = no_stored_states,
    ) -> None:
        self.runs = runs
        self.learner = learner
        self.options = runs[0].training
        self.last = runs[0].last
        self.iteration = runs[0].begin
        self.evaluated = self.iteration
        self.history = History(len(runs))
        self.seconds = 0.0
        self._current_scores: dict[SplitName, list[Evaluation]] = {}
        # Tickets of one replicate share a seed, and so their batches.
        self._orders = {seed: examples.order(seed, self.options.batch_size) for seed in {run.seed for run in runs}}
        self._max_steps = 10  # until the speed is known
        # Speed is measured between two moments at which the device has done all that the host asked for.
        self._in_step = True
        self._measured_from = 0.0, self.iteration
        if runs[0].resumes:
            learner.load_optimizer_states([initial_optimizer_state(run, load_state) for run in runs])

    @property
    def finished(self) -> bool:
        """Whether all iterations are done and evaluated, or all runs have diverged."""
        done = self.iteration >= self.last and bool(self.history.iterations)
        return done or self.history.diverged

    def advance(self) -> None:
        """Train some iterations, and evaluate if it is time to."""
        began = time.monotonic()
        if self._in_step:
            self._measured_from = began, self.iteration
        every = self.options.evaluate_every.iterations
        steps = min(every - self.iteration % every, self.last - self.iteration, self._max_steps, MAX_STEPS)
        if steps:
            self._train(steps)
        if self.iteration % every == 0 or self.iteration == self.last:
            self._evaluate()
        now = time.monotonic()
        if self._in_step:
            self._measure_speed(now)
        self.seconds += now - began

    def _measure_speed(self, now: float) -> None:
        """Set how many iterations are trained at once, at most twice as many as were measured."""
        began, first = self._measured_from
        steps = self.iteration - first
        in_time = int(steps * MAX_SECONDS / max(now - began, 1e-6))
        self._max_steps = max(1, min(2 * max(self._max_steps, steps), in_time))

    def _train(self, steps: int) -> None:
        orders = {seed: order.batches(self.iteration, steps) for seed, order in self._orders.items()}
        self.learner.train(torch.stack([orders[run.seed] for run in self.runs]), self.iteration)
        self.iteration += steps
        self._current_scores.clear()
        self._in_step = self.learner.device.type == "cpu"

    def _evaluate(self) -> None:
        since = self.iteration - self.evaluated
        self.evaluated = self.iteration
        if since:
            losses = [loss / since for loss in self.learner.take_losses()]
        else:  # nothing was trained: the loss of the current weights
            losses = [score.loss for score in self._scores("train")]
        validation = self.learner.evaluate("validation")
        tests = self._scores("test") if self.options.test_curve else None
        self._in_step = True
        improved = self.history.add(self.iteration, losses, validation, tests)
        if any(improved):
            self.learner.keep_best(improved)

    def outcomes(self, engine: str) -> list[Outcome]:
        """The outcomes of the finished runs. Runs trained as one stack share the time equally."""
        began = time.monotonic()
        at_end = at_stop = self._final_scores(best=False)
        if not self.history.improving:
            at_stop = self._final_scores(best=True)
        measures = self.history.measures(self.iteration, at_stop, at_end)
        seconds = (self.seconds + time.monotonic() - began) / len(self.runs)
        nothing: list[State] = [{}] * len(self.runs)
        finals = nothing if self.runs[0].interpolates else self.learner.weights()
        optimizers = self.learner.optimizer_states() if self.runs[0].keeps_optimizer else nothing
        return [
            Outcome(final, curves, measured, engine, seconds, without_pruned(optimizer, run.mask))
            for run, final, curves, measured, optimizer in zip(
                self.runs, finals, self.history.curves(), measures, optimizers, strict=True
            )
        ]

    def _scores(self, split: SplitName) -> list[Evaluation]:
        """Each run's evaluation with its current weights; each split is evaluated once between trainings."""
        if split not in self._current_scores:
            self._current_scores[split] = self.learner.evaluate(split)
        return self._current_scores[split]

    def _final_scores(self, best: bool) -> list[tuple[Evaluation, Evaluation]]:
        """Each run's evaluations on training and test examples."""
        scores = partial(self.learner.evaluate, best=True) if best else self._scores
        train, test = (scores(name) for name in ("train", "test"))
        return list(zip(train, test, strict=True))

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything a checkpoint needs, as tensors, which further training does not change, and JSON values."""
        began = time.monotonic()
        states = {"learner": self.learner.state_dict(), "history": self.history.state_dict()}
        tensors = {f"{part}/{name}": tensor for part, state in states.items() for name, tensor in state.items()}
        self._in_step = True
        self.seconds += time.monotonic() - began  # on an accelerator it waited for the training
        return tensors, {"iteration": self.iteration, "evaluated": self.evaluated, "seconds": self.seconds}

    def restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        """Restore what `snapshot` returned."""
        self.learner.load_state_dict(strip_prefix(tensors, "learner"))
        self.history.load_state_dict(strip_prefix(tensors, "history"))
        self.iteration, self.evaluated = about["iteration"], about["evaluated"]
        self.seconds = about["seconds"]


def run_to_end(training: TrainingLoop, checkpoint: Checkpoint, engine: str) -> list[Outcome]:
    """Train to the end, resuming from `checkpoint` if `engine` saved a state there. However it ends, no checkpoint is
    being written then."""
    if saved := checkpoint.load(engine):
        training.restore(*saved)
    try:
        while not training.finished:
            raise_if_cancelled()
            training.advance()
            if not training.finished and checkpoint.due():
                checkpoint.save(*training.snapshot(), engine)
        return training.outcomes(engine)
    finally:
        checkpoint.wait()
