"""Drives studies with made-up outcomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.support.outcomes import outcome_of
from tombola.pruning.mask import Mask
from tombola.pruning.pruner import Pruner
from tombola.pruning.scopes import Layerwise
from tombola.pruning.scores import magnitude
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study
from tombola.zoo.models import build

RATES = {"fc1.weight": 0.4, "fc2.weight": 0.4, "output.weight": 0.2}


def prune_by_magnitude(outcome: Outcome, run: Run, level: int) -> Mask:  # noqa: ARG001
    weights = {name: outcome.final[name] for name in run.mask}
    return Pruner(magnitude, Layerwise(RATES))(ScoreInputs(weights, run.mask))


def drive(
    study: Study[Any], diverge_at: int | None = None, outcome: Callable[[RunRequest], Outcome] | None = None
) -> tuple[list[list[RunRequest]], Any]:
    """The requests that a study yields, a list for each time, and what it returns."""
    make = outcome or (lambda request: outcome_of(request.run, diverged=request.level == diverge_at))
    yielded: list[list[RunRequest]] = []
    reply: Any = None
    while True:
        try:
            asked = study.send(reply)
        except StopIteration as end:
            return yielded, end.value
        requests = asked if isinstance(asked, list) else [asked]
        yielded.append(requests)
        outcomes = [make(request) for request in requests]
        reply = outcomes if isinstance(asked, list) else outcomes[0]


def requests_of(
    study: Study[Any], outcome: Callable[[RunRequest], Outcome] | None = None, diverge_at: int | None = None
) -> list[RunRequest]:
    """All requests of a study, in order."""
    return [request for requests in drive(study, diverge_at, outcome)[0] for request in requests]


def with_biases(request: RunRequest) -> Outcome:
    """A made-up outcome whose final state is complete."""
    outcome = outcome_of(request.run)
    start = request.run.start.model_copy(update={"trained": None})
    return replace(outcome, final=build(start).state_dict() | outcome.final)
