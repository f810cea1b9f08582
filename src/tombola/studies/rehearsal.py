"""Rehearsal: the requests of a study, without any training; unknown outcomes are made up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tombola.runs.outcome import Measures, Outcome
from tombola.runs.run import BaseRun, Run
from tombola.studies.request import RunRequest, Study


@dataclass(frozen=True)
class MadeUp(Outcome):
    """The outcome of a run that was not trained: it did not diverge, and has no figures."""

    key: str = ""
    """The key of the run."""

    @classmethod
    def of(cls, run: BaseRun, key: str) -> MadeUp:
        """The outcome of `run`, without weights. A training by the user's function has an unknown length."""
        iterations = run.last if isinstance(run, Run) else run.end or run.begin
        return cls({}, {}, Measures(diverged=False, iterations=iterations), "", 0.0, key=key)


@dataclass(frozen=True)
class Rehearsed:
    """A request of a study."""

    request: RunRequest
    alone: bool
    """Whether the study waits for this request alone; otherwise it is in a list of runs that can train in
    parallel."""
    outcome: Outcome
    """The known outcome, or a `MadeUp` one."""


def rehearse(study: Study[Any], answer: Callable[[RunRequest, bool], Outcome]) -> Iterator[Rehearsed]:
    """The requests of `study`, in order. `answer` returns the outcome of a request, known or made up. Its second
    argument says whether the request is alone, so that the study may look at its final weights."""
    reply: Any = None
    while True:
        try:
            with _quiet():
                asked = study.send(reply)
        except StopIteration:
            return
        alone = isinstance(asked, RunRequest)
        outcomes = []
        for request in [asked] if isinstance(asked, RunRequest) else asked:
            outcome = answer(request, alone)
            outcomes.append(outcome)
            yield Rehearsed(request, alone, outcome)
        reply = outcomes[0] if alone else outcomes


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the messages of studies about made-up outcomes."""
    logger = logging.getLogger("tombola.studies")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
