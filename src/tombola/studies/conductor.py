"""The conductor: advances studies side by side, answers from the store what it can, has the rest trained."""

from __future__ import annotations

import contextlib
import heapq
import itertools
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from tombola.engines import Engine
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun
from tombola.runs.store import Store
from tombola.studies.request import RunRequest, Study


class Listener(Protocol):
    """Is told what happens, in the conductor's own thread. `study` is a study's index."""

    def started(self, study: int, ask: RunRequest) -> None:
        """The training that answers `ask` begins."""

    def answered(self, study: int, ask: RunRequest, outcome: Outcome, trained: bool) -> None:
        """`ask` is answered: by a training just now, or (`trained` is False) from the store."""


@dataclass(frozen=True)
class ListenerGroup:
    """Several listeners as one."""

    listeners: Sequence[Listener]

    def started(self, study: int, ask: RunRequest) -> None:
        for listener in self.listeners:
            listener.started(study, ask)

    def answered(self, study: int, ask: RunRequest, outcome: Outcome, trained: bool) -> None:
        for listener in self.listeners:
            listener.answered(study, ask, outcome, trained)


def train(runs: Sequence[BaseRun], store: Store, engine: Engine[Any]) -> list[bool]:
    """Make sure that the store knows what comes of `runs`, which are of one shape. False for those it already did.

    Any number of processes may do this with the same runs: one of them trains each.
    """
    with contextlib.ExitStack() as claims:
        # Everybody claims in the same order, so that nobody waits in a ring.
        for run in sorted(runs, key=lambda run: run.key):
            claims.enter_context(store.claim(run))
        new = [run for run in runs if store.get(run) is None]
        if new:
            checkpoint = store.checkpoint(new)
            for run, outcome in zip(new, engine.train(new, checkpoint, store.recall), strict=True):
                store.put(run, outcome)
            checkpoint.clear()
        return [run in new for run in runs]


@dataclass
class _Question:
    """What a study waits for: its asks, and the answers so far."""

    study: int
    asks: list[RunRequest]
    alone: bool
    """It yielded an ask, not a list, and is sent an outcome, not a list."""
    outcomes: dict[int, Outcome] = field(default_factory=dict)


class Conductor:
    """Drives studies to their ends; see `conduct`."""

    def __init__(
        self,
        studies: Sequence[Study[Any]],
        store: Store,
        engine: Engine[Any],
        executor: Executor,
        listener: Listener,
        at_once: int,
    ) -> None:
        self.studies = studies
        self.store = store
        self.engine = engine
        self.executor = executor
        self.listener = listener
        self.at_once = at_once
        self.results: list[Any] = [None] * len(studies)
        self.wanted: dict[str, list[tuple[_Question, int]]] = {}  # key of a run -> the asks it answers
        self.queue: list[tuple[int, int, BaseRun]] = []  # a heap: the smallest question first, then in order
        self.training: dict[Future[list[bool]], list[BaseRun]] = {}
        self.count = itertools.count()

    def conduct(self) -> list[Any]:
        for study in range(len(self.studies)):
            self._advance(study, None)
        while self.queue or self.training:
            while self.queue and len(self.training) < self.at_once:
                self._start(self._next())
            finished, _ = wait(self.training, return_when=FIRST_COMPLETED)
            for future in finished:
                for run, trained in zip(self.training.pop(future), future.result(), strict=True):
                    self._finish(run, trained)
        return self.results

    def _advance(self, study: int, answer: Any) -> None:
        """Send a study its answer, and deal with what it asks next, for as long as the store knows the answers."""
        while True:
            try:
                asked = self.studies[study].send(answer)
            except StopIteration as end:
                self.results[study] = end.value
                return
            question = (
                _Question(study, [asked], True) if isinstance(asked, RunRequest) else _Question(study, asked, False)
            )
            for index, ask in enumerate(question.asks):
                if ask.run.key not in self.wanted and (known := self.store.get(ask.run)):
                    self._answer(question, index, known, trained=False)
                else:
                    self._want(question, index)
            if len(question.outcomes) < len(question.asks):
                return
            answer = self._reply(question)

    def _want(self, question: _Question, index: int) -> None:
        """Queue the run of an ask, unless it is queued already."""
        run = question.asks[index].run
        if run.key not in self.wanted:
            # A question of one run holds up a whole study; of many runs, each can wait for the others.
            heapq.heappush(self.queue, (len(question.asks), next(self.count), run))
        self.wanted.setdefault(run.key, []).append((question, index))

    def _next(self) -> list[BaseRun]:
        """The first run of the queue, and as many of its shape as the engine trains as one; an even share of them
        where several are trained at once."""
        first = heapq.heappop(self.queue)[2]
        together = self.engine.capacity(first).together
        if together == 1:
            return [first]
        alike = [entry for entry in sorted(self.queue) if entry[2].shape == first.shape]
        share = -(-(1 + len(alike)) // (self.at_once - len(self.training)))
        alike = alike[: min(share, together) - 1]
        self.queue = [entry for entry in self.queue if entry not in alike]
        heapq.heapify(self.queue)
        return [first, *(run for _, _, run in alike)]

    def _start(self, runs: list[BaseRun]) -> None:
        for run in runs:
            question, index = self.wanted[run.key][0]
            self.listener.started(question.study, question.asks[index])
        self.training[self.executor.submit(train, runs, self.store, self.engine)] = runs

    def _finish(self, run: BaseRun, trained: bool) -> None:
        outcome = self.store.get(run)
        if outcome is None:
            raise RuntimeError(f"the outcome of run {run.key} vanished from {self.store.folder}")
        for question, index in self.wanted.pop(run.key):
            self._answer(question, index, outcome, trained)
            trained = False  # one training, however many asked for it
            if len(question.outcomes) == len(question.asks):
                self._advance(question.study, self._reply(question))

    def _answer(self, question: _Question, index: int, outcome: Outcome, trained: bool) -> None:
        # Of a list, which may be hundreds, no study wants the weights: they would fill the memory.
        question.outcomes[index] = outcome if question.alone else replace(outcome, final={}, optimizer={})
        self.listener.answered(question.study, question.asks[index], outcome, trained)

    def _reply(self, question: _Question) -> Outcome | list[Outcome]:
        outcomes = [question.outcomes[index] for index in range(len(question.asks))]
        return outcomes[0] if question.alone else outcomes


def conduct(
    studies: Sequence[Study[Any]],
    store: Store,
    engine: Engine[Any],
    executor: Executor,
    listener: Listener,
    at_once: int = 1,
) -> list[Any]:
    """Drive `studies` to their ends and return their results.

    Runs the store does not know are trained in `executor`, `at_once` of them side by side. What a finished run
    gave is in the store before anybody hears of it, so that whatever happens, running the same studies again
    goes on from there.
    """
    return Conductor(studies, store, engine, executor, listener, at_once).conduct()
