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
    """The trainings share their first k iterations."""
    pair: int = 0
    """The index among lines of the same kind."""
    level: int = 0
    tickets: TicketLine | None = None

    def request(self, share: float, at: int) -> RunRequest:
        """The network at `share` of the way; `one` ended at iteration `at`."""
        if share in (0.0, 1.0):
            run = self.other if share else self.one
        else:
            run = self.one.masked(self.other.mask).between(self.one, self.other, share, at)
        return RunRequest("stability", self.level, run, self.pair, InterpolationPoint(self.k, share, self.tickets))


def evaluate_lines(lines: Sequence[Line], points: int) -> Study[list[list[Outcome] | None]]:
    """Train the ends of all lines, then evaluate the networks at `points` positions of each, ends included.

    Returns the outcomes along each line; None if one of them diverged. Nothing is evaluated between ends of which one
    diverged.
    """
    ends: list[Outcome] = yield [line.request(share, 0) for line in lines for share in (0.0, 1.0)]
    pairs = list(zip(ends[::2], ends[1::2], strict=True))
    shares = np.linspace(0, 1, points).tolist()[1:-1]
    reached = [not any(end.measures.diverged for end in pair) for pair in pairs]
    found: list[Outcome] = yield [
        line.request(share, one.measures.iterations)
        for line, (one, _), both in zip(lines, pairs, reached, strict=True)
        if both
        for share in shares
    ]
    inner = iter(found)
    along = [
        [one, *(next(inner) for _ in shares), other] if both else None
        for (one, other), both in zip(pairs, reached, strict=True)
    ]
    return [None if each is None or any(o.measures.diverged for o in each) else each for each in along]


def final_accuracy(outcome: Outcome) -> float:
    """The final accuracy on the validation examples; the test set must not choose anything."""
    return float(outcome.curves["validation_accuracy"][-1])
