"""Training: the part that is the same for every engine. Stretches of iterations, evaluations, checkpoints, outcomes.

An engine brings a `Learner`, which holds the weights and does the arithmetic, of one run or of several as one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from tombola.engines.history import Evaluation, History
from tombola.pruning.mask import State
from tombola.runs.initial_state import Recall, initial_optimizer_state, no_earlier_runs
from tombola.runs.outcome import Outcome, without_pruned
from tombola.runs.run import Run
from tombola.runs.store import Checkpoint
from tombola.utils.workers import raise_if_cancelled
from tombola.zoo.batches import batches

Part = Literal["train", "validation", "test"]

STRETCH = 1000
"""After how many iterations at most `advance` returns, so that a checkpoint can be written."""

PATIENCE = 1.0
"""Seconds that a stretch should take at most."""


class Learner(Protocol):
    """The weights of one or more runs of one shape, and the arithmetic on them. Lists are in the runs' order."""

    def train(self, orders: Tensor, first: int) -> None:
        """Train on these batches: indices into the training examples, int64 of shape (runs, iterations, batch).

        The first of them is iteration `first`. On an accelerator it does not wait for it.
        """

    def take_losses(self) -> list[float]:
        """The sum of the training losses since this was last asked."""
        ...

    def evaluate(self, part: Part, best: bool = False) -> list[Evaluation]:
        """How the networks do, in evaluation mode, with their present weights or the best so far."""
        ...

    def keep(self, better: Sequence[bool]) -> None:
        """From now on the present weights of these runs are their best."""

    def weights(self) -> list[State]:
        """The present weights: each network's whole `state_dict`, on the CPU."""
        ...

    def optimizers(self) -> list[State]:
        """What each run's optimizer remembers, as in `Outcome.optimizer`; of pruned weights it may be anything."""
        ...

    def load_optimizers(self, states: Sequence[State]) -> None:
        """Go on from what the optimizers of earlier runs remembered. Nothing was trained yet."""

    def state(self) -> dict[str, Tensor]:
        """All that the rest of the training depends on: weights, best weights, optimizer, random state, loss sums."""
        ...

    def load(self, state: dict[str, Tensor]) -> None:
        """Go back to where `state` was taken."""


class TrainingLoop:
    """The trainings of `runs`, which differ in nothing but starts, masks, splits and seeds, after `iteration`
    iterations. What optimizers go on from comes from `recall`."""

    def __init__(
        self, runs: Sequence[Run], learner: Learner, examples: int, recall: Recall = no_earlier_runs
    ) -> None:
        self.runs = runs
        self.learner = learner
        self.examples = examples
        self.options = runs[0].training
        self.last = runs[0].last
        self.iteration = runs[0].begin
        self.evaluated = self.iteration
        self.histories = [History() for _ in runs]
        self.seconds = 0.0
        self._stretch = 10
        if runs[0].resumes:
            learner.load_optimizers([initial_optimizer_state(run, recall) for run in runs])

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do: all iterations are done and evaluated, or no loss is finite any more."""
        done = self.iteration >= self.last
        return all(history.diverged_at is not None or (done and history.rows) for history in self.histories)

    def advance(self) -> None:
        """Train for a stretch, and evaluate if it is time to."""
        began = time.monotonic()
        every = self.options.evaluate_every.iterations
        steps = min(every - self.iteration % every, self.last - self.iteration, self._stretch, STRETCH)
        if steps:
            self._train(steps)
        if self.iteration % every == 0 or self.iteration == self.last:
            self._evaluate()
        elapsed = time.monotonic() - began
        self._stretch = max(1, min(2 * self._stretch, int(steps * PATIENCE / max(elapsed, 1e-6))))
        self.seconds += elapsed

    def _train(self, steps: int) -> None:
        orders = {  # tickets of one replicate share a seed, and with it their order
            seed: batches(seed, self.examples, self.options.batch_size, self.iteration, steps)
            for seed in {run.seed for run in self.runs}
        }
        self.learner.train(torch.stack([orders[run.seed] for run in self.runs]), self.iteration)
        self.iteration += steps

    def _evaluate(self) -> None:
        since = self.iteration - self.evaluated
        self.evaluated = self.iteration
        if since:
            losses = [loss / since for loss in self.learner.take_losses()]
        else:  # nothing was trained: it is the present weights' loss
            losses = [score.loss for score in self.learner.evaluate("train")]
        validation = self.learner.evaluate("validation")
        tests = self.learner.evaluate("test") if self.options.test_curve else [None] * len(self.runs)
        better = [
            history.add(self.iteration, loss, score, test)
            for history, loss, score, test in zip(self.histories, losses, validation, tests, strict=True)
        ]
        if any(better):
            self.learner.keep(better)

    def outcomes(self, engine: str) -> list[Outcome]:
        """What came of the runs, now that they have ended. Runs trained as one share the time."""
        began = time.monotonic()
        at_end = at_stop = self._final_scores(best=False)
        if any(not history.rows or history.stop["iteration"] < self.iteration for history in self.histories):
            at_stop = self._final_scores(best=True)
        figures = [
            history.measures(self.iteration, stop, end)
            for history, stop, end in zip(self.histories, at_stop, at_end, strict=True)
        ]
        seconds = (self.seconds + time.monotonic() - began) / len(self.runs)
        nothing: list[State] = [{}] * len(self.runs)
        finals = nothing if self.runs[0].mixed else self.learner.weights()
        optimizers = self.learner.optimizers() if self.runs[0].keeps_optimizer else nothing
        return [
            Outcome(final, history.curves(), measures, engine, seconds, without_pruned(optimizer, run.mask))
            for run, final, history, measures, optimizer in zip(
                self.runs, finals, self.histories, figures, optimizers, strict=True
            )
        ]

    def _final_scores(self, best: bool) -> list[tuple[Evaluation, Evaluation]]:
        """Of each run, on training and on test examples."""
        train, test = (self.learner.evaluate(part, best) for part in ("train", "test"))
        return list(zip(train, test, strict=True))

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the rest of the training depends on, as tensors and JSON values."""
        about = {
            "iteration": self.iteration,
            "evaluated": self.evaluated,
            "histories": [asdict(history) for history in self.histories],
            "seconds": self.seconds,
        }
        return self.learner.state(), about

    def restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        """Go back to where `snapshot` was taken."""
        self.learner.load(tensors)
        self.iteration, self.evaluated = about["iteration"], about["evaluated"]
        self.histories = [History(**history) for history in about["histories"]]
        self.seconds = about["seconds"]


def run_to_end(training: TrainingLoop, checkpoint: Checkpoint, engine: str) -> list[Outcome]:
    """Bring a training to its end, from where `checkpoint` left off if `engine` saved anything there."""
    if saved := checkpoint.load(engine):
        training.restore(*saved)
    while not training.finished:
        raise_if_cancelled()
        training.advance()
        if checkpoint.due() and not training.finished:
            checkpoint.save(*training.snapshot(), engine)
    return training.outcomes(engine)
