"""The verdict, level by level: does the ticket match the dense network in accuracy and in training time?

Levels are tested in a fixed order, from dense to sparse, beginning with the densest that has far fewer weights;
behind the first that does not win, none is called winning. So the chance that any level is wrongly called
winning stays at 1 - confidence, however many levels there are (fixed-sequence testing, Maurer, Hothorn &
Lehmacher 1995). This is a first verdict: it supposes that differences between replicates are roughly normal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from tombola.evidence.interval import Interval, mean_interval
from tombola.run import Described
from tombola.table import Row

FEWEST_REPLICATES = 3
"""With two, differences that happen to be equal would look certain."""


class Criteria(Described):
    """`[verdict]`: what counts as winning."""

    accuracy_margin: float = Field(default=0.002, ge=0, lt=1)
    """By how much test accuracy at early stop may fall short of the dense network's: 0.002 is 0.2 points."""
    stop_margin: float = Field(default=0.05, ge=0)
    """By how much the early-stopping iteration may come later, as a fraction of the dense network's."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """How sure each of the two statements must be."""
    few: float = Field(default=0.5, gt=0, lt=1)
    """At most this fraction of weights left counts as far fewer."""


@dataclass(frozen=True)
class Verdict:
    """What can be said of one level, paired over replicates."""

    level: int
    accurate: bool
    """With the stated confidence, accuracy at early stop is not below the dense network's by more than the margin."""
    fast: bool
    """With the stated confidence, the early-stopping iteration is not later than the dense network's by more than
    the margin; and it is one: a minimum at the last iteration is where training ended, not an early stop."""
    few: bool
    """Far fewer weights are left."""
    reached: bool
    """All denser levels with far fewer weights win: the sequence of tests comes this far."""
    accuracy_difference: Interval | None
    """Ticket minus dense, as a fraction; bounds are one-sided, each of the stated confidence."""
    stop_difference: Interval | None
    """Ticket minus dense, as a fraction of the dense network's mean early-stopping iteration."""

    @property
    def winning(self) -> bool:
        """All of it (Frankle & Carbin 2019, section 1: j' ≤ j, a' ≥ a, ‖m‖₀ ≪ |θ|)."""
        return self.accurate and self.fast and self.few and self.reached


def judge(rows: Sequence[Row], replicates: int, criteria: Criteria) -> list[Verdict]:
    """The verdict on every level there are tickets of, from dense to sparse.

    A replicate that is missing at a level, or diverged there, was no match: such a level cannot win.
    """
    tickets: dict[int, dict[int, Row]] = {}
    for row in rows:
        if row.branch == "ticket":
            tickets.setdefault(row.level, {})[row.replicate] = row
    verdicts: list[Verdict] = []
    for level in sorted(tickets):
        reached = all(verdict.winning for verdict in verdicts if verdict.few)
        verdicts.append(_judge_level(level, tickets.get(0, {}), tickets[level], replicates, criteria, reached))
    return verdicts


def _judge_level(
    level: int, dense: dict[int, Row], tickets: dict[int, Row], replicates: int, criteria: Criteria, reached: bool
) -> Verdict:
    few = all(ticket.weights_left <= criteria.few for ticket in tickets.values())
    pairs = [(dense[replicate].measures, ticket.measures) for replicate, ticket in sorted(tickets.items())]
    complete = len(pairs) == replicates and not any(a.diverged or b.diverged for a, b in pairs)
    if not complete:
        return Verdict(level, False, False, few, reached, None, None)
    enough = replicates >= FEWEST_REPLICATES
    two_sided = 2 * criteria.confidence - 1
    accuracy = mean_interval(
        [_number(b.test_accuracy_at_stop) - _number(a.test_accuracy_at_stop) for a, b in pairs], two_sided
    )
    dense_stop = float(np.mean([_number(a.stop_iteration) for a, _ in pairs]))
    stop = mean_interval(
        [(_number(b.stop_iteration) - _number(a.stop_iteration)) / dense_stop for a, b in pairs], two_sided
    )
    stopped_early = all(_number(b.stop_iteration) < b.iterations for _, b in pairs)
    return Verdict(
        level,
        accurate=enough and accuracy.low is not None and accuracy.low >= -criteria.accuracy_margin,
        fast=enough and stop.high is not None and stop.high <= criteria.stop_margin and stopped_early,
        few=few,
        reached=reached,
        accuracy_difference=accuracy,
        stop_difference=stop,
    )


def _number(value: float | None) -> float:
    assert value is not None, "a run that did not diverge has all its figures"
    return value


def smallest_winning(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The winning level with the fewest weights."""
    return max((verdict for verdict in verdicts if verdict.winning), key=lambda v: v.level, default=None)
