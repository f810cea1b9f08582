"""The conductor: advances several studies, answers their requests from the store, and submits missing runs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from tombola.engines import Engine
from tombola.runs.outcome import Outcome
from tombola.runs.store import Store
from tombola.studies.local_training import LocalTraining, Training
from tombola.studies.remote_training import RemoteTraining
from tombola.studies.request import RunRequest, Study
from tombola.studies.run_queue import QueuedRun, RunQueue
from tombola.utils.errors import InputError, TrainingsFailed
from tombola.utils.text import first_line


class Listener(Protocol):
    """Callbacks, called in the conductor's thread. Override what you need; any object with the first two will do.

    `study` is the index of the study, which in an experiment is the replicate.
    """

    def started(self, study: int, request: RunRequest) -> None:  # noqa: ARG002
        """The training that answers `request` starts."""
        return

    def answered(self, study: int, request: RunRequest, outcome: Outcome, trained: bool) -> None:  # noqa: ARG002
        """The outcome of `request` is known: it was just trained, or (`trained` is False) was in the store."""
        return

    def failed(self, study: int, request: RunRequest, error: Exception, again: bool) -> None:  # noqa: ARG002
        """The training that answers `request` failed on a worker; `again` says whether it is tried again."""
        return

    def between_trainings(self) -> None:
        """Every outcome so far has been answered, and no training starts before this returns. Called again and again
        while trainings run elsewhere, at least every `RECHECK` seconds."""
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

    def failed(self, study: int, request: RunRequest, error: Exception, again: bool) -> None:
        for listener in self.listeners:
            if hasattr(listener, "failed"):
                listener.failed(study, request, error, again)

    def between_trainings(self) -> None:
        for listener in self.listeners:
            if hasattr(listener, "between_trainings"):
                listener.between_trainings()


RECHECK = 1.0
"""Seconds until runs that another process trains are submitted again."""


@dataclass
class _Pending:
    """The requests that a study waits for, and their outcomes so far."""

    study: int
    requests: list[RunRequest]
    single: bool
    """Whether the study yielded a single request, not a list, and is sent a single outcome."""
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
    training: Training
    listener: Listener

    def __post_init__(self) -> None:
        self.results: list[Any] = [None] * len(self.studies)
        self.waiting: dict[str, list[tuple[_Pending, int]]] = {}  # key of a run -> the requests it answers
        self.queue = RunQueue()
        self.under_way: dict[Future[Any], list[QueuedRun]] = {}
        self.ended = SimpleQueue[Future[Any]]()
        self.again = deque[list[QueuedRun]]()  # submitted before, together: their checkpoint is that of all of them
        self.elsewhere: list[list[QueuedRun]] = []  # another process trains them
        self.look_again = 0.0
        self.errors: dict[str, list[Exception]] = {}  # of each run that has failed, by its key

    def conduct(self) -> list[Any]:
        for study in range(len(self.studies)):
            self._advance(study, None)
        while self.queue or self.again or self.under_way or self.elsewhere:
            self.listener.between_trainings()
            while (self.queue or self.again) and len(self.under_way) < self.training.at_once:
                self._start(self.again.popleft() if self.again else self._next_runs())
            with suppress(Empty):
                self._collect(self.ended.get(timeout=RECHECK))
            if self.elsewhere and time.monotonic() >= self.look_again:
                self.again.extend(self.elsewhere)
                self.elsewhere = []
        if self.waiting:
            raise self._failure()
        return self.results

    def _advance(self, study: int, reply: Any) -> None:
        """Send a study its reply and handle its next requests, as long as the store has all their outcomes."""
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
        """The first run of the queue, with the runs of the same shape that are trained with it; if several trainings
        may run at once, an even share of them."""
        parallel = self.training.parallel
        free = parallel - len(self.under_way)
        share = -(-self.queue.alike // (free if free > 0 else parallel))
        return self.queue.take(min(share, self.training.max_runs(self.queue.first)))

    def _start(self, queued: list[QueuedRun]) -> None:
        runs = [each.run for each in queued]
        if not self.training.claim(runs):
            self.elsewhere.append(queued)
            self.look_again = time.monotonic() + RECHECK
            return
        for each in queued:
            self.listener.started(*self._request(each.key))
        future = self.training.submit(runs)
        self.under_way[future] = queued
        future.add_done_callback(self.ended.put)

    def _collect(self, future: Future[Any]) -> None:
        queued = self.under_way.pop(future)
        runs = [each.run for each in queued]
        try:
            result = future.result()
        except Exception as error:
            self.training.failed(runs, error)
            if self.training.tries == 1:
                raise
            if again := [each for each in queued if self._failed(each, error)]:
                self.again.append(again)
        else:
            for each, trained in zip(queued, self.training.ended(runs, result), strict=True):
                self._finish(each, trained)

    def _failed(self, queued: QueuedRun, error: Exception) -> bool:
        """Whether it is tried again. Its study waits for it; the others go on."""
        errors = self.errors.setdefault(queued.key, [])
        errors.append(error)
        again = len(errors) < self.training.tries
        self.listener.failed(*self._request(queued.key), error, again)
        return again

    def _failure(self) -> Exception:
        """The exception that ends the experiment if runs have failed as often as they may."""
        last = {key: errors[-1] for key, errors in self.errors.items() if key in self.waiting}
        if all(isinstance(error, InputError) for error in last.values()):
            return next(iter(last.values()))
        return TrainingsFailed(
            [f"{_described(*self._request(key))}: {first_line(error)}" for key, error in last.items()],
            self.training.tries,
        )

    def _request(self, key: str) -> tuple[int, RunRequest]:
        """The first request that the run with this key answers, and its study."""
        pending, index = self.waiting[key][0]
        return pending.study, pending.requests[index]

    def _finish(self, queued: QueuedRun, trained: bool) -> None:
        outcome = self.store.get(queued.run, fresh=True)
        if outcome is None:
            raise RuntimeError(f"the outcome of run {queued.key} disappeared from {self.store.place}")
        for pending, index in self.waiting.pop(queued.key):
            self._answer(pending, index, outcome, trained)
            trained = False  # it counts once, even if it answers several requests
            if pending.complete:
                self._advance(pending.study, pending.reply)

    def _answer(self, pending: _Pending, index: int, outcome: Outcome, trained: bool) -> None:
        # A list may have hundreds of runs, whose weights would fill the memory; no study needs them.
        pending.outcomes[index] = outcome if pending.single else replace(outcome, final={}, optimizer={})
        self.listener.answered(pending.study, pending.requests[index], outcome, trained)


def _described(study: int, request: RunRequest) -> str:
    return f"replicate {study}, {request.branch} level {request.level} (run {request.run.key})"


def conduct(
    studies: Sequence[Study[Any]],
    store: Store,
    engine: Engine[Any],
    executor: Executor,
    listener: Listener,
    at_once: int | None = 1,
    remote: bool = False,
) -> list[Any]:
    """Run `studies` to completion and return their results.

    Runs that the store lacks are trained in `executor`, `at_once` at a time. Local workers use the store themselves.
    Workers that are `remote` receive what they need; then `at_once` may be None (see `RemoteTraining`), and a run
    that fails is tried again. An outcome is stored before a listener or a study gets it, so after any interruption
    the same studies can be resumed.

    Raises what a local training raises. If remote trainings failed as often as they may, raises `TrainingsFailed`
    once everything else is finished, or `InputError` if all of them failed because of an `InputError`.
    """
    training: Training = (
        RemoteTraining(store, engine, executor, at_once)
        if remote
        else LocalTraining(store, engine, executor, at_once or 1)
    )
    with closing(training):
        return Conductor(studies, store, training, ListenerGroup([listener])).conduct()
