"""SimulatedWorkers: an executor whose workers take simulated time, while the process that uses it really works."""

from __future__ import annotations

import heapq
import itertools
import pickle
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun
from tombola.studies.training_task import TrainingTask


@dataclass(frozen=True)
class SharedValue:
    """What a machine would fetch once. Nobody asks for it."""

    def __call__(self) -> Any:
        raise NotImplementedError


@dataclass
class SimulatedWorkers(Executor):
    """Each task takes `seconds` of simulated time. What the driver does advances the clock by its processor time,
    and by `storing` seconds for each outcome, so that workers wait for the driver.

    It takes the place of the conductor's queue of ended futures too, and so knows when the driver waits.
    """

    workers: int
    seconds: float
    outcome: Callable[[Any], Outcome]
    """Of a run."""
    storing: float = 0.0
    now: float = 0.0
    """Simulated seconds."""
    busy: float = 0.0
    """Seconds in which workers trained, summed over the workers."""
    sent: int = 0
    """Bytes of the tasks."""
    own_seconds: float = 0.0
    """Processor time of what workers would do: it is no time of the driver's."""
    _order: Any = field(default_factory=itertools.count)
    _since: float = field(default_factory=time.process_time)

    def __post_init__(self) -> None:
        self._free = [0.0] * self.workers  # when each worker is free
        self._ends: list[tuple[float, int, Future[Any], bytes]] = []

    def slots(self) -> int:
        """See `RemoteTraining`."""
        return self.workers

    def share(self, value: Any) -> SharedValue:  # noqa: ARG002
        """See `RemoteTraining`."""
        return SharedValue()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ARG002
        """Give the task to the worker that is free first."""
        task = pickle.dumps(args)
        self.sent += len(task)
        self._driver_worked()
        begin = max(self.now, heapq.heappop(self._free))
        heapq.heappush(self._free, begin + self.seconds)
        self.busy += self.seconds
        future: Future[Any] = Future()
        heapq.heappush(self._ends, (begin + self.seconds, next(self._order), future, task))
        return future

    def put(self, future: Future[Any]) -> None:
        """Nothing: `get` knows which futures have ended."""

    def get(self, timeout: float) -> Future[Any]:  # noqa: ARG002 - of real time
        """The next future to end, as soon as it does."""
        self._driver_worked()
        began = time.process_time()
        end, _, future, task = heapq.heappop(self._ends)
        runs = _runs(*pickle.loads(task))
        future.set_result({run.key: self.outcome(run) for run in runs})
        self.now = max(self.now, end) + self.storing * len(runs)
        self.own_seconds += time.process_time() - began
        self._since = time.process_time()
        return future

    def _driver_worked(self) -> None:
        now = time.process_time()
        self.now, self._since = self.now + now - self._since, now


def _runs(task: TrainingTask) -> list[BaseRun]:
    return list(task.runs)
