"""Stability: from which iteration on do trainings end in one valley, whatever the order of their batches?

A network is stable at iteration k when two trainings that share their first k iterations, and differ in batch order
after, end at weights joined by a straight line without an error barrier (Frankle et al. 2020, "Linear Mode
Connectivity and the Lottery Ticket Hypothesis", section 2). Tickets of larger networks are found by rewinding to
where they are stable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.request import Point, RunRequest, Study
from tombola.studies.rewinding import rewound_to


@dataclass(frozen=True)
class InterpolationPlan:
    """Which lines are walked."""

    candidates: Sequence[int]
    """The iterations k, in order."""
    seeds: Sequence[int]
    """One line for each: from where the dense network's training ends to where one with this seed does."""
    points: int
    """How many on each line, both ends included."""
    tolerance: float
    """The highest error barrier that counts as none; a fraction of the examples."""


def final_accuracy(outcome: Outcome) -> float:
    """The accuracy on the validation examples at the end: the test set chooses nothing."""
    return float(outcome.curves["validation_accuracy"][-1])


def mean_barrier(lines: Sequence[Sequence[float] | None]) -> float:
    """The mean of the barriers on several lines of one k; 1 where a training diverged, which is None."""
    return 1.0 if None in lines else float(np.mean([barrier(errors) for errors in lines if errors is not None]))


def barrier(errors: Sequence[float]) -> float:
    """The highest error on a line above the mean of that at its two ends (Frankle et al. 2020, section 2)."""
    return max(errors) - (errors[0] + errors[-1]) / 2


def instability(dense: Run, k: int, walks: InterpolationPlan) -> Study[float]:
    """The mean error barrier on the validation examples, of the lines between trainings that share k iterations."""
    one = yield from rewound_to(dense, k)
    others = [one.model_copy(update={"seed": seed}) for seed in walks.seeds]
    shares = np.linspace(0, 1, walks.points).tolist()

    def walk(pair: int, share: float) -> RunRequest:
        run = {0.0: one, 1.0: others[pair]}.get(share) or dense.between(one, others[pair], share)
        return RunRequest("stability", 0, run, pair, Point(k, share))

    errors: dict[tuple[int, float], float] = {}
    for part in ([0.0, 1.0], shares[1:-1]):  # where the line ends is known only after training
        asks = [(pair, share) for pair in range(len(others)) for share in part]
        outcomes: list[Outcome] = yield [walk(pair, share) for pair, share in asks]
        if any(outcome.measures.diverged for outcome in outcomes):
            return mean_barrier([None])
        errors |= {ask: 1 - final_accuracy(outcome) for ask, outcome in zip(asks, outcomes, strict=True)}
    return mean_barrier([[errors[pair, share] for share in shares] for pair in range(len(others))])


def smallest_stable(dense: Run, walks: InterpolationPlan) -> Study[int]:
    """The first of the candidates at which the mean barrier is within the tolerance; the last if none is."""
    for k in walks.candidates:
        height = yield from instability(dense, k, walks)
        if height <= walks.tolerance:
            return k
    return walks.candidates[-1]


def all_candidates(dense: Run, walks: InterpolationPlan) -> Study[None]:
    """Walk from each of them, whatever is found."""
    for k in walks.candidates:
        yield from instability(dense, k, walks)
