"""Studies that request given runs, and an engine that only records what it was given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.support.outcomes import outcome_of
from tombola.engines.training_loop import Capacity
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study


class RecordingEngine:
    """Makes outcomes up, and records the runs it was given."""

    def __init__(self, max_runs: int = 1) -> None:
        self.max_runs = max_runs
        self.trained: list[Run] = []
        self.sizes: list[int] = []

    def capacity(self, run: Run) -> Capacity:  # noqa: ARG002
        return Capacity(self.max_runs)

    def train(self, runs: Sequence[Run], checkpoint: Any, load_state: Any = None) -> list[Outcome]:  # noqa: ARG002
        self.trained += runs
        self.sizes.append(len(runs))
        return [outcome_of(run) for run in runs]


def request_together(*runs: Run) -> Study[list[Outcome]]:
    outcomes: list[Outcome] = yield [RunRequest("ticket", 0, run, draw) for draw, run in enumerate(runs)]
    return outcomes


def request_in_turn(*runs: Run) -> Study[list[Outcome]]:
    outcomes = []
    for level, run in enumerate(runs):
        outcome: Outcome = yield RunRequest("ticket", level, run)
        outcomes.append(outcome)
    return outcomes


def runs_like(dense: Run, count: int) -> list[Run]:
    return [dense.reinitialised(seed) for seed in range(count)]
