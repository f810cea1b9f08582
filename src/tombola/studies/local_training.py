"""LocalTraining: missing runs are trained by workers that share the store."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, Future
from typing import Any, Protocol

from tombola.engines import Engine
from tombola.runs.run import BaseRun
from tombola.runs.store import Store


class Training(Protocol):
    """Trains missing runs and stores their outcomes, for the conductor."""

    tries: int
    """How often a run is tried; the last failure ends the experiment."""

    @property
    def at_once(self) -> int:
        """How many calls of `submit` may be running. The number may change while runs are trained."""

    @property
    def parallel(self) -> int:
        """How many of them train in parallel; others are submitted ahead."""

    def max_runs(self, run: BaseRun) -> int:
        """How many runs of the shape of `run` one call of `submit` takes."""

    def claim(self, runs: Sequence[BaseRun]) -> bool:
        """Whether `runs` may be submitted now; if not, another process trains some of them."""

    def submit(self, runs: Sequence[BaseRun]) -> Future[Any]:
        """Begin to train `runs`, which have the same shape and are claimed."""

    def ended(self, runs: Sequence[BaseRun], result: Any) -> list[bool]:
        """The training of `runs` has ended, with this result of the future. Afterwards the store has all outcomes.
        Returns for each run whether it was trained, or False if it was already in the store. Raises `InputError` if
        the store cannot be written."""

    def failed(self, runs: Sequence[BaseRun], error: Exception) -> None:
        """The training of `runs` has raised this exception."""

    def close(self) -> None:
        """Give up trainings that are still running."""


class LocalTraining:
    """Workers on this machine: they read from the store, and write outcomes to it. A failure ends the experiment."""

    tries = 1

    def __init__(self, store: Store, engine: Engine[Any], executor: Executor, at_once: int = 1) -> None:
        self.at_once = at_once
        self._store = store
        self._engine = engine
        self._executor = executor

    @property
    def parallel(self) -> int:
        """See `Training`."""
        return self.at_once

    def max_runs(self, run: BaseRun) -> int:
        """See `Training`."""
        return self._engine.capacity(run).max_runs

    def claim(self, runs: Sequence[BaseRun]) -> bool:  # noqa: ARG002
        """See `Training`. A worker waits for runs that another process trains."""
        return True

    def submit(self, runs: Sequence[BaseRun]) -> Future[list[bool]]:
        """See `Training`."""
        return self._executor.submit(train_missing, runs, self._store, self._engine)

    def ended(self, runs: Sequence[BaseRun], result: list[bool]) -> list[bool]:  # noqa: ARG002
        """See `Training`. The worker has stored the outcomes."""
        return result

    def failed(self, runs: Sequence[BaseRun], error: Exception) -> None:
        """See `Training`."""

    def close(self) -> None:
        """See `Training`. The executor's block cancels what is running."""


def train_missing(runs: Sequence[BaseRun], store: Store, engine: Engine[Any]) -> list[bool]:
    """Train those of `runs` that the store lacks; all have the same shape. Returns whether each was trained.

    Any number of processes may do this with the same runs: each run is trained by one of them.
    """
    with store.claim(runs):
        known = [store.get(run, fresh=True) is not None for run in runs]
        new = [run for run, found in zip(runs, known, strict=True) if not found]
        if new:
            checkpoint = store.checkpoint(new)
            for run, outcome in zip(new, engine.train(new, checkpoint, store.load_state), strict=True):
                store.put(run, outcome)
            checkpoint.clear()
        return [not found for found in known]
