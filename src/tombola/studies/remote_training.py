"""RemoteTraining: missing runs are trained by workers that receive everything they need, and return outcomes.

Only the driver, the process that conducts the studies, needs the store. Workers save checkpoints in it where they can
reach it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any, TypeVar

from tombola.engines import Engine
from tombola.engines.training_loop import Capacity
from tombola.pruning.mask import State
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun, Run
from tombola.runs.store import Store
from tombola.studies.training_task import Shared, TrainingTask, capacity_task, pickle_engine, train_task
from tombola.zoo.datasets import described_dataset
from tombola.zoo.datasets.dataset import Dataset
from tombola.zoo.datasets.description import Data

T = TypeVar("T")

TRIES = 3
"""How often a run is tried: retrying helps if a worker or machine has died, but not for most errors of a training."""

AHEAD = 1.25
"""The number of trainings submitted for each one that can run, so that no worker waits for the driver."""

MANY = 256
"""The number of trainings that an executor is given at once if it does not say how many it can run."""

MAX_SHARED = 16
"""The number of final states of earlier runs that stay shared, for further runs that start from them."""

MAX_DATASET = {True: 2**30, False: 2**22}
"""The largest dataset in bytes that is sent to workers: if the executor can share it (True), and if it travels with
each task (False). Workers read a larger dataset themselves."""


@dataclass(frozen=True)
class _Value:
    """A value that travels with each task."""

    value: Any

    def __call__(self) -> Any:
        return self.value


class RemoteTraining:
    """Trains in any executor. Values that several tasks need are shared by the executor's method `share`, if any."""

    tries = TRIES

    def __init__(self, store: Store, engine: Engine[Any], executor: Executor, at_once: int | None = None) -> None:
        """By default, `at_once` is what the executor's method `slots` returns, or its number of workers. Raises
        `InputError` if `engine` cannot be pickled."""
        self._store = store
        self._workers_store = replace(store, folder=store.folder.absolute())  # they have another working directory
        self._engine = engine
        self._executor = executor
        self._at_once = at_once
        self._claim = store.claims()
        self._pickled = pickle_engine(engine)
        self._shared_engine = self._share(self._pickled)
        self._states: dict[tuple[str, bool], Shared[State]] = {}
        self._datasets: dict[str, Shared[Dataset] | None] = {}
        self._capacities: dict[object, int] = {}
        self._under_way: set[Future[Any]] = set()

    @property
    def at_once(self) -> int:
        """See `Training`."""
        return self._at_once or math.ceil(AHEAD * self.parallel)

    @property
    def parallel(self) -> int:
        """See `Training`."""
        slots: Callable[[], int] | None = getattr(self._executor, "slots", None)
        if slots is not None:
            return max(1, min(slots(), self._at_once or MANY))
        workers: int | None = getattr(self._executor, "_max_workers", None)
        return self._at_once or workers or MANY

    def max_runs(self, run: BaseRun) -> int:
        """See `Training`. A worker with the GPU computes the engine's capacity on it."""
        if getattr(self._engine, "device", "cpu") == "cpu":
            capacity: Capacity = self._engine.capacity(run)
            return capacity.max_runs
        if run.shape not in self._capacities:
            self._capacities[run.shape] = self._ask_capacity(run)
        return self._capacities[run.shape]

    def claim(self, runs: Sequence[BaseRun]) -> bool:
        """See `Training`."""
        return self._claim.try_add([run.key for run in runs])

    def submit(self, runs: Sequence[BaseRun]) -> Future[Any]:
        """See `Training`. The future's result is the outcomes of those runs that the store lacks."""
        missing = [run for run in runs if self._store.get(run, fresh=True) is None]
        if not missing:
            future: Future[Any] = Future()
            future.set_result({})
            return future
        future = self._executor.submit(train_task, self._task(missing))
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future

    def ended(self, runs: Sequence[BaseRun], result: Mapping[str, Outcome]) -> list[bool]:
        """See `Training`. Outcomes are stored here."""
        keys = [run.key for run in runs]
        trained = [key in result for key in keys]
        for run, key, new in zip(runs, keys, trained, strict=True):
            if new:
                self._store.put(run, result[key])
        self._claim.remove(keys)
        if result:
            self._store.checkpoint(list(compress(runs, trained))).clear()
        return trained

    def failed(self, runs: Sequence[BaseRun], error: Exception) -> None:
        """See `Training`. If the error is `lost`, shared values may be lost, too, and are shared again."""
        self._claim.remove([run.key for run in runs])
        if getattr(error, "lost", False):
            self._shared_engine = self._share(self._pickled)
            self._states.clear()
            self._datasets.clear()

    def close(self) -> None:
        """See `Training`."""
        for future in list(self._under_way):
            future.cancel()
        self._claim.release()

    def _ask_capacity(self, run: BaseRun) -> int:
        for _ in range(TRIES - 1):
            with suppress(Exception):  # the worker may be lost
                return self._submit_capacity(run).result()
        return self._submit_capacity(run).result()

    def _submit_capacity(self, run: BaseRun) -> Future[int]:
        return self._executor.submit(capacity_task, self._task([run]))

    def _task(self, runs: Sequence[BaseRun]) -> TrainingTask:
        states = {state: self._state(*state) for run in runs for state in _states(run)}
        described = {run.data.digest: run.data for run in runs if isinstance(run, Run)}
        datasets = {digest: self._dataset(data) for digest, data in described.items()}
        handed = {digest: dataset for digest, dataset in datasets.items() if dataset is not None}
        return TrainingTask(
            list(runs), self._shared_engine, states, handed, self._workers_store, self._store.store_id
        )

    def _share(self, value: T) -> Shared[T]:
        share: Callable[[T], Shared[T]] = getattr(self._executor, "share", _Value)
        return share(value)

    def _state(self, key: str, optimizer: bool) -> Shared[State]:
        """The final state of an earlier run, or of its optimizer."""
        if (key, optimizer) not in self._states:
            while len(self._states) >= MAX_SHARED:
                self._states.pop(next(iter(self._states)))
            self._states[key, optimizer] = self._share(self._store.load_state(key, optimizer=optimizer))
        return self._states[key, optimizer]

    def _dataset(self, data: Data) -> Shared[Dataset] | None:
        """The dataset, if it is in memory and not too large; otherwise workers read its files."""
        if data.digest not in self._datasets:
            dataset = described_dataset(data, getattr(self._engine, "data_dir", None))
            most = MAX_DATASET[hasattr(self._executor, "share")]
            if isinstance(dataset, Dataset) and dataset.nbytes <= most:
                self._datasets[data.digest] = self._share(dataset)
            else:
                self._datasets[data.digest] = None
        return self._datasets[data.digest]


def _states(run: BaseRun) -> Iterator[tuple[str, bool]]:
    """The final states, of weights or optimizers, that `run` starts from."""
    for key in run.start.parents:
        yield key, False
    if (trained := run.start.trained) is not None and trained.optimizer:
        yield trained.run, True
