"""A training that is stopped after a few iterations, to measure its speed with the engine that will do it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from tombola.engines import Engine
from tombola.runs.checkpoint import NoCheckpoint
from tombola.runs.run import Run

MIN_SECONDS = 0.25
"""How long a training is measured, unless it is shorter."""


class Measured(NamedTuple):
    """How long some iterations took."""

    begin: int
    end: int
    """The iteration after the last; with evaluations in between, at the end included."""
    seconds: float
    """Of one run."""
    finished: bool
    """The whole training is measured, with the evaluations of its result."""

    @property
    def seconds_from_start(self) -> float:
        """Of the iterations before, too, without what was done only once."""
        return self.seconds * self.end / (self.end - self.begin)


class _Stopped(Exception):
    """Enough is measured."""


class _Stopwatch(NoCheckpoint):
    """In place of a checkpoint, as whose saves say how far the training is; nothing is written."""

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[tuple[int, float]] = []  # iterations, and seconds until then, after everything is compiled
        self.evaluated = 0  # the iteration of the last evaluation

    def due(self) -> bool:
        return True

    def save(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any], engine: str) -> None:  # noqa: ARG002
        if about["evaluated"] > self.evaluated == 0:  # what evaluates was compiled then
            self.marks.clear()
        self.evaluated = about["evaluated"]
        self.marks.append((about["iteration"], about["seconds"]))
        if about["seconds"] - self.marks[0][1] >= MIN_SECONDS:
            raise _Stopped


def time_short_training(engine: Engine[Run], runs: Sequence[Run]) -> Measured:
    """Train `runs`, which have one shape, as one, until their speed is known: some ten iterations, and what fits into
    `MIN_SECONDS`. What is compiled in the first iterations does not count. Raises whatever the engine raises."""
    measured = _time(engine, runs)
    return _time(engine, runs) if measured.finished else measured  # now that everything is compiled


def _time(engine: Engine[Run], runs: Sequence[Run]) -> Measured:
    watch = _Stopwatch()
    try:
        outcomes = engine.train(runs, watch)
    except _Stopped:
        (first, before), (last, after) = watch.marks[0], watch.marks[-1]
        return Measured(first, last, (after - before) / len(runs), finished=False)
    return Measured(runs[0].begin, runs[0].last, outcomes[0].seconds, finished=True)
