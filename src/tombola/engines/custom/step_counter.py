"""Marking: where in a training of the user's own iteration k is."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook


class TrainingEnded(BaseException):
    """The training has come to where it should end. No `Exception`, so that nobody takes it for an error."""


class StepCounter:
    """A training that is being watched."""

    def __init__(self, network: nn.Module, end: int | None, at_mark: bool) -> None:
        self.network = network
        self.at_mark = at_mark
        """It ends where the user's function says `mark()`."""
        self.end = end
        """Or after so many steps."""
        self.thrown = self.reached = False
        self._within = 0  # steps of optimizers that drive others
        self._first: weakref.WeakKeyDictionary[Optimizer, int | None] = weakref.WeakKeyDictionary()
        self._steps: Counter[int] = Counter()

    @property
    def steps(self) -> int:
        """How many steps were made. Optimizers that take turns with different parameters, as of a generator and a
        discriminator, count side by side; those that follow one another with the same, one after the other."""
        return max(self._steps.values(), default=0)

    def stepping(self, *_: Any) -> None:
        """A step begins."""
        self._within += 1

    def stepped(self, optimizer: Optimizer, *_: Any) -> None:
        """Count a step of an optimizer that trains this network, those made within it not. Raises `TrainingEnded`."""
        self._within = max(0, self._within - 1)
        if self._within:
            return
        if optimizer not in self._first:
            own = {id(parameter) for parameter in self.network.parameters()}
            trained = (id(parameter) for group in optimizer.param_groups for parameter in group["params"])
            self._first[optimizer] = next((parameter for parameter in trained if parameter in own), None)
        first = self._first[optimizer]
        if first is None:
            return
        self._steps[first] += 1
        if self.end is not None and self.steps >= self.end:
            self.end_here()

    def end_here(self) -> None:
        """Raises `TrainingEnded`."""
        self.thrown = True
        raise TrainingEnded


_watches: list[StepCounter] = []


@contextmanager
def counting_steps(network: nn.Module, end: int | None = None, at_mark: bool = False) -> Iterator[StepCounter]:
    """Count the steps of the optimizers that train `network`, and end the block quietly where it should end."""
    watch = StepCounter(network, end, at_mark)
    handles = [
        register_optimizer_step_pre_hook(watch.stepping),
        register_optimizer_step_post_hook(watch.stepped),
    ]
    _watches.append(watch)
    try:
        yield watch
    except TrainingEnded:
        watch.reached = True
    finally:
        _watches.remove(watch)
        for handle in handles:
            handle.remove()


def mark() -> None:
    """Say, from within a training function, that this is the point to rewind to; see `rewind` of `find_ticket`.

    Anywhere else it does nothing, so it may stay in the function.
    """
    for watch in _watches:
        if watch.at_mark:
            watch.end_here()
