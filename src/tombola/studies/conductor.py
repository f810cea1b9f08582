"""The conductor: advances several studies, answers their requests from the store, and has missing runs trained."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from tombola.engines import Engine
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun
from tombola.runs.store import Store
from tombola.studies.request import RunRequest, Study
from tombola.studies.run_queue import QueuedRun, RunQueue


class Listener(Protocol):
    """Callbacks, called in the conductor's thread. Override what you need; any object with both methods will do.

    `study` is the index of the study, which in an experiment is the replicate.
    """

    def started(self, study: int, request: RunRequest) -> None:  # noqa: ARG002
        """The training that answers `request` starts."""
        return

    def answered(self, study: int, request: RunRequest, outcome: Outcome, trained: bool) -> None:  # noqa: ARG002
        """The outcome of `request` is known: it was just trained, or (`trained` is False) was in the store."""
        return


@dataclass(frozen=True)
class ListenerGroup(Listener):
    """Several listeners as one."""

    listeners: Sequence[Listener]

    def started(self, study: int, request: RunRequest) -> None:
        for listener in self.listeners:
            listener.started(study, request)

    def answered(self, study: int, request: RunRequest, outcome: Outcome, trained: bool) -> None:
        for listener in self.listeners:
            listener.answered(study, request, outcome, trained)


def train_missing(runs: Sequence[BaseRun], store: Store, engine: Engine[Any]) -> list[bool]:
    """Train those of `runs`, which have one shape, that the store lacks. Returns whether each was trained.

    Any number of processes may do this with the same runs: each run is trained by one of them.
    """
    with store.claim(runs):
        known = [store.get(run) is not None for run in runs]
        new = [run for run, found in zip(runs, known, strict=True) if not found]
        if new:
            checkpoint = store.checkpoint(new)
            for run, outcome in zip(new, engine.train(new, checkpoint, store.load_state), strict=True):
                store.put(run, outcome)
            checkpoint.clear()
        return [not found for found in known]


@dataclass
class _Pending:
    """What a study waits for: its requests, and their outcomes so far."""

    study: int
    requests: list[RunRequest]
    single: bool
    """It yielded a request, not a list, and is sent an outcome."""
    outcomes: dict[int, Outcome] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return len(self.outcomes) == len(self.requests)

    @property
    def reply(self) -> Outcome | list[Outcome]:
        outcomes = [self.outcomes[index] for index in range(len(self.requests))]
        return outcomes[0] if self.single else outcomes


@dataclass
class Conductor:
    """Runs studies to completion; see `conduct`."""

    studies: Sequence[Study[Any]]
    store: Store
    engine: Engine[Any]
    executor: Executor
    listener: Listener
    at_once: int

    def __post_init__(self) -> None:
        self.results: list[Any] = [None] * len(self.studies)
        self.waiting: dict[str, list[tuple[_Pending, int]]] = {}  # key of a run -> the requests it answers
        self.queue = RunQueue()
        self.training: dict[Future[list[bool]], list[QueuedRun]] = {}

    def conduct(self) -> list[Any]:
        for study in range(len(self.studies)):
            self._advance(study, None)
        while self.queue or self.training:
            while self.queue and len(self.training) < self.at_once:
                self._start(self._next_runs())
            finished, _ = wait(self.training, return_when=FIRST_COMPLETED)
            for future in finished:
                for queued, trained in zip(self.training.pop(future), future.result(), strict=True):
                    self._finish(queued, trained)
        return self.results

    def _advance(self, study: int, reply: Any) -> None:
        """Send a study its reply and handle its next requests, for as long as the store has all their outcomes."""
        while True:
            try:
                yielded = self.studies[study].send(reply)
            except StopIteration as end:
                self.results[study] = end.value
                return
            single = isinstance(yielded, RunRequest)
            pending = _Pending(study, [yielded] if isinstance(yielded, RunRequest) else yielded, single)
            for index, request in enumerate(pending.requests):
                run, key = request.run, request.run.key
                if key not in self.waiting and (known := self.store.get(run)):
                    self._answer(pending, index, known, trained=False)
                    continue
                if key not in self.waiting:
                    # A single request blocks its whole study; the runs of a long list wait for one another anyway.
                    self.queue.add(run, key, len(pending.requests))
                self.waiting.setdefault(key, []).append((pending, index))
            if not pending.complete:
                return
            reply = pending.reply

    def _next_runs(self) -> list[QueuedRun]:
        """The first run of the queue, with as many of its shape as the engine trains together; if several trainings
        may run at once, an even share of them."""
        share = -(-self.queue.alike // (self.at_once - len(self.training)))
        return self.queue.take(min(share, self.engine.capacity(self.queue.first).max_runs))

    def _start(self, queued: list[QueuedRun]) -> None:
        for each in queued:
            pending, index = self.waiting[each.key][0]
            self.listener.started(pending.study, pending.requests[index])
        runs = [each.run for each in queued]
        self.training[self.executor.submit(train_missing, runs, self.store, self.engine)] = queued

    def _finish(self, queued: QueuedRun, trained: bool) -> None:
        outcome = self.store.get(queued.run)
        if outcome is None:
            raise RuntimeError(f"the outcome of run {queued.key} disappeared from {self.store.folder}")
        for pending, index in self.waiting.pop(queued.key):
            self._answer(pending, index, outcome, trained)
            trained = False  # it counts once, however many requests it answers
            if pending.complete:
                self._advance(pending.study, pending.reply)

    def _answer(self, pending: _Pending, index: int, outcome: Outcome, trained: bool) -> None:
        # A list may have hundreds of runs, whose weights would fill the memory; no study needs them.
        pending.outcomes[index] = outcome if pending.single else replace(outcome, final={}, optimizer={})
        self.listener.answered(pending.study, pending.requests[index], outcome, trained)


def conduct(
    studies: Sequence[Study[Any]],
    store: Store,
    engine: Engine[Any],
    executor: Executor,
    listener: Listener,
    at_once: int = 1,
) -> list[Any]:
    """Run `studies` to completion and return their results.

    Runs that the store lacks are trained in `executor`, `at_once` at a time. An outcome is stored before a listener
    or a study gets it, so after any interruption the same studies can be resumed.
    """
    return Conductor(studies, store, engine, executor, listener, at_once).conduct()
