"""Counts the optimizer steps of the user's training function, and ends it at an iteration or at `mark()`."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook


class TrainingEnded(BaseException):
    """Ends a training. Not an `Exception`, so that handlers of errors do not catch it."""


class StepCounter:
    """Counts the steps of the optimizers that train one network."""

    def __init__(
        self,
        network: nn.Module,
        end: int | None = None,
        at_mark: bool = False,
        every: int | None = None,
        begin: int = 0,
        on_evaluation: Callable[[int], None] | None = None,
    ) -> None:
        """`on_evaluation` is called with the number of steps, at every multiple of `every`; `begin` is the number of
        steps of earlier trainings."""
        self.network = network
        self.at_mark = at_mark
        """The training ends where the user's function calls `mark()`."""
        self.end = end
        """The training ends after so many steps."""
        self.every = every
        self.begin = begin
        self.called = False
        """The user's function calls `evaluate()`, and so decides itself when the network is evaluated."""
        self._on_evaluation = on_evaluation
        self.raised = self.reached = False
        self._nested = 0  # steps of optimizers that call other optimizers
        self._evaluating = False
        self._first_parameter: weakref.WeakKeyDictionary[Optimizer, int | None] = weakref.WeakKeyDictionary()
        self._steps: Counter[int] = Counter()

    @property
    def steps(self) -> int:
        """The number of steps. Optimizers with different parameters, as of a generator and a discriminator, are
        counted separately, and the largest number is returned; those with the same parameters count together."""
        return max(self._steps.values(), default=0)

    def before_step(self, *_: Any) -> None:
        """Called before each step of any optimizer."""
        if not self._evaluating:
            self._nested += 1

    def after_step(self, optimizer: Optimizer, *_: Any) -> None:
        """Count the step if its optimizer trains this network and no other called it. May raise `TrainingEnded`."""
        if self._evaluating:
            return
        self._nested = max(0, self._nested - 1)
        if self._nested:
            return
        if optimizer not in self._first_parameter:
            own = {id(parameter) for parameter in self.network.parameters()}
            trained = (id(parameter) for group in optimizer.param_groups for parameter in group["params"])
            self._first_parameter[optimizer] = next((parameter for parameter in trained if parameter in own), None)
        first = self._first_parameter[optimizer]
        if first is None:
            return
        before = self.steps
        self._steps[first] += 1
        if self.every and not self.called and self.steps > before and (self.begin + self.steps) % self.every == 0:
            self.evaluate()
        if self.end is not None and self.steps >= self.end:
            self.end_training()

    def evaluate(self) -> None:
        """Have the network evaluated, if it is to be. Optimizer steps within the evaluation do not count, and it does
        not evaluate itself."""
        if self._on_evaluation is not None and not self._evaluating:
            self._evaluating = True
            try:
                self._on_evaluation(self.steps)
            finally:
                self._evaluating = False

    def end_training(self) -> None:
        """Raises `TrainingEnded`."""
        self.raised = True
        raise TrainingEnded


_counters: list[StepCounter] = []


@contextmanager
def counting_steps(network: nn.Module, **options: Any) -> Iterator[StepCounter]:
    """Count the steps of the optimizers that train `network`, and end the block where the options of `StepCounter`
    say so."""
    counter = StepCounter(network, **options)
    handles = [
        register_optimizer_step_pre_hook(counter.before_step),
        register_optimizer_step_post_hook(counter.after_step),
    ]
    _counters.append(counter)
    try:
        yield counter
    except TrainingEnded:
        counter.reached = True
    finally:
        _counters.remove(counter)
        for handle in handles:
            handle.remove()


def mark() -> None:
    """Say, from within a training function, that this is the point to rewind to; see `rewind` of `find_ticket`.
    Anywhere else it does nothing, so it may stay in the function."""
    for counter in _counters:
        if counter.at_mark:
            counter.end_training()


def evaluate() -> None:
    """Evaluate the network now, from within a training function: the one given to `find_ticket` is called. The
    training then decides itself when it is evaluated, and `every` has no effect. Anywhere else it does nothing, so it
    may stay in the function."""
    for counter in _counters:
        counter.called = True
        counter.evaluate()
