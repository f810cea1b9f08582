"""Stability: from which iteration on do trainings end in the same linearly connected minimum?

A network is stable at iteration k when two trainings that share their first k iterations, and then differ in batch
order, end at weights joined by a straight line without an error barrier (Frankle et al. 2020, "Linear Mode
Connectivity and the Lottery Ticket Hypothesis", section 2). Larger networks have tickets when rewound to such a k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun
from tombola.studies.lines import Line, evaluate_lines
from tombola.studies.request import Study
from tombola.studies.rewinding import train_trunk


@dataclass(frozen=True)
class InterpolationPlan:
    """The lines between final weights to evaluate."""

    candidates: Sequence[int]
    """The iterations k, in order."""
    seeds: Sequence[int]
    """One line for each: from the final weights of the dense network to those of a training with this seed."""
    points: int
    """The number of points on each line, both ends included."""
    tolerance: float
    """The highest barrier of a stable network, in the units of errors."""
    errors: Callable[[Sequence[Outcome]], list[float] | None]
    """Computes the errors of the networks on a line on the validation examples (lower is better), because the test
    set must not choose anything. None if some errors are not finite."""
    worst: float
    """The barrier of a line with errors that are not finite, or on which a network diverged."""
    evaluate_ends: bool = False
    """See `evaluate_lines`."""


def mean_barrier(lines: Sequence[Sequence[float] | None], worst: float) -> float:
    """The mean of the barriers on several lines of one k. A line on which a network diverged is None; then the mean
    is `worst`."""
    return worst if None in lines else float(np.mean([barrier(errors) for errors in lines if errors is not None]))


def barrier(errors: Sequence[float]) -> float:
    """The highest error on a line minus the mean error of its two ends (Frankle et al. 2020, section 2)."""
    return max(errors) - (errors[0] + errors[-1]) / 2


def instability(dense: BaseRun, k: int, plan: InterpolationPlan) -> Study[float]:
    """The mean error barrier, on the validation examples, of the lines between trainings that share k iterations."""
    one = yield from train_trunk(dense, k)
    others = [one.model_copy(update={"seed": seed}) for seed in plan.seeds]
    lines = [Line(one, other, k, pair) for pair, other in enumerate(others)]
    found = yield from evaluate_lines(lines, plan.points, plan.evaluate_ends)
    return mean_barrier([None if line is None else plan.errors(line) for line in found], plan.worst)


def smallest_stable(dense: BaseRun, plan: InterpolationPlan) -> Study[int]:
    """The first candidate whose mean barrier is within the tolerance; if there is none, the last candidate."""
    for k in plan.candidates:
        height = yield from instability(dense, k, plan)
        if height <= plan.tolerance:
            return k
    return plan.candidates[-1]


def all_candidates(dense: BaseRun, plan: InterpolationPlan) -> Study[None]:
    """Evaluate the lines of every candidate."""
    for k in plan.candidates:
        yield from instability(dense, k, plan)
