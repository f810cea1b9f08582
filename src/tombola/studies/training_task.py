"""TrainingTask: everything that a worker on any machine needs to train runs."""

from __future__ import annotations

import contextlib
import functools
import pickle
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import torch
from threadpoolctl import threadpool_limits

from tombola.engines import Engine
from tombola.engines.training_loop import Capacity
from tombola.pruning.mask import State
from tombola.runs.checkpoint import NoCheckpoint
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun
from tombola.runs.store import Store
from tombola.utils.errors import InputError
from tombola.utils.libraries import versions
from tombola.utils.pickling import dumps
from tombola.zoo.datasets.dataset import Dataset
from tombola.zoo.datasets.handed import handed_over

T = TypeVar("T")
Shared = Callable[[], T]
"""Can be pickled; called in a worker, it returns the value."""


@dataclass(frozen=True)
class TrainingTask:
    """Runs of the same shape, and everything that their training needs."""

    runs: Sequence[BaseRun]
    engine: Shared[bytes]
    """The engine, pickled."""
    states: Mapping[tuple[str, bool], Shared[State]]
    """The final states that the runs start from, by the key of their run; with True, the states of its optimizer."""
    datasets: Mapping[str, Shared[Dataset]]
    """Datasets by their digest; the worker reads others itself."""
    store: Store
    """The store for checkpoints, if the worker can reach it."""
    store_id: str | None
    versions: Mapping[str, str] = field(default_factory=versions)
    """The versions of the libraries that results depend on, on the machine that made the task."""
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex)
    """A random value that makes calls differ: Dask answers a call that equals an earlier one, even a failed one, from
    memory."""

    def load_state(self, key: str, /, *, optimizer: bool = False) -> State:
        """See `StateLoader`."""
        return self.states[key, optimizer]()


def train_task(task: TrainingTask) -> dict[str, Outcome]:
    """Train the runs of the task with one thread. Returns their outcomes by key.

    Raises `InputError` if this machine has other versions of the libraries, and what the engine raises.
    """
    with _prepared(task) as engine:
        reached = task.store_id is not None and task.store.store_id == task.store_id
        checkpoint = task.store.checkpoint(task.runs) if reached else NoCheckpoint()
        outcomes = engine.train(task.runs, checkpoint, task.load_state)
        return {run.key: outcome for run, outcome in zip(task.runs, outcomes, strict=True)}


def capacity_task(task: TrainingTask) -> int:
    """How many runs of the task's shape the engine trains at once on this machine."""
    with _prepared(task) as engine:
        capacity: Capacity = engine.capacity(task.runs[0])
        return capacity.max_runs


@contextlib.contextmanager
def _prepared(task: TrainingTask) -> Iterator[Engine[Any]]:
    for name, here in versions().items():
        there = task.versions[name]
        if here.partition("+")[0] != there.partition("+")[0]:  # builds for CPUs and for GPUs differ after the "+"
            raise InputError(f"the worker has {name} {here}, but the machine that started the experiment {there}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"), handed_over(task.datasets):
            yield _engine(task.engine())
    finally:
        torch.set_num_threads(threads)


_PICKLED_HERE: WeakValueDictionary[bytes, Engine[Any]] = WeakValueDictionary()


def pickle_engine(engine: Engine[Any]) -> bytes:
    """The pickled engine, as tasks carry it. Raises `InputError` if it cannot be pickled."""
    pickled = dumps(engine)
    with contextlib.suppress(TypeError):  # classes with __slots__ may not allow weak references
        _PICKLED_HERE[pickled] = engine
    return pickled


def _engine(pickled: bytes) -> Engine[Any]:
    """The engine itself in the process that pickled it, otherwise a copy.

    cloudpickle pickles the user's classes with their methods. To unpickle them in the same process would replace the
    methods by copies, which see copies of their module's variables.
    """
    here = _PICKLED_HERE.get(pickled)
    return _unpickled(pickled) if here is None else here


@functools.lru_cache(maxsize=1)
def _unpickled(engine: bytes) -> Engine[Any]:
    """The engine, unpickled once in each process, with everything that the user's functions refer to."""
    unpickled: Engine[Any] = pickle.loads(engine)
    return unpickled
