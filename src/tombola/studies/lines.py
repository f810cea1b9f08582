"""Lines: the networks on straight lines between the final weights of two trainings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun
from tombola.studies.request import InterpolationPoint, RunRequest, Study, TicketLine


@dataclass(frozen=True)
class Line:
    """The straight line from the final weights of one training to those of another."""

    one: BaseRun
    other: BaseRun
    """Its mask is that of the networks in between, so it keeps all weights that `one` keeps."""
    k: int
    """The number of first iterations that the two trainings share."""
    pair: int = 0
    """The index among lines of the same kind."""
    level: int = 0
    tickets: TicketLine | None = None

    @property
    def ends(self) -> list[RunRequest]:
        """The trainings of both ends."""
        return [self._request(0.0, self.one), self._request(1.0, self.other)]

    def between(self, share: float, at: int) -> RunRequest:
        """The evaluation of the network at `share` of the way; `one` ended at iteration `at`."""
        return self._request(share, self.one.masked(self.other.mask).between(self.one, self.other, share, at))

    def _request(self, share: float, run: BaseRun) -> RunRequest:
        return RunRequest("stability", self.level, run, self.pair, InterpolationPoint(self.k, share, self.tickets))


def evaluate_lines(
    lines: Sequence[Line], points: int, evaluate_ends: bool = False
) -> Study[list[list[Outcome] | None]]:
    """Train the ends of all lines, then evaluate the networks at `points` positions of each, ends included. With
    `evaluate_ends`, the ends are evaluated again like the other points, although their trainings measured them.

    Returns the outcomes along each line; None if one of them diverged. If an end diverged, nothing is evaluated
    between the ends.
    """
    ends: list[Outcome] = yield [end for line in lines for end in line.ends]
    pairs = list(zip(ends[::2], ends[1::2], strict=True))
    shares = np.linspace(0, 1, points).tolist()
    if not evaluate_ends:
        shares = shares[1:-1]
    reached = [not any(end.measures.diverged for end in pair) for pair in pairs]
    found: list[Outcome] = yield [
        line.between(share, one.measures.iterations)
        for line, (one, _), both in zip(lines, pairs, reached, strict=True)
        if both
        for share in shares
    ]
    evaluated = iter(found)
    along = []
    for (one, other), both in zip(pairs, reached, strict=True):
        inner = [next(evaluated) for _ in shares] if both else []
        along.append((inner if evaluate_ends else [one, *inner, other]) if both else None)
    return [None if each is None or any(o.measures.diverged for o in each) else each for each in along]


def final_figure(outcome: Outcome, name: str) -> float | None:
    """A figure of the final weights, such as `validation_accuracy`; None if the training diverged, or if the figure
    was measured only at an earlier early stop."""
    measures = outcome.measures
    if measures.diverged:
        return None
    if (value := measures[name]) is not None:
        return value
    if name in outcome.curves:
        return float(outcome.curves[name][-1])
    return measures[f"{name}_at_stop"] if measures.stop_iteration in (None, measures.iterations) else None
