"""Tickets beside what else was trained at their level, paired over replicates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tombola.experiments.row import Row
from tombola.stats.paired import Paired, Values

Branch = dict[int, list[Row]]
"""The rows of one branch at one level, by replicate; several where a control has several draws."""


def by_level(rows: Sequence[Row]) -> dict[int, dict[str, Branch]]:
    """Rows by level, in order, then branch, then replicate."""
    levels: dict[int, dict[str, Branch]] = {}
    for row in sorted(rows, key=lambda row: (row.level, row.replicate, row.draw)):
        levels.setdefault(row.level, {}).setdefault(row.branch, {}).setdefault(row.replicate, []).append(row)
    return levels


@dataclass(frozen=True)
class Pair:
    """A replicate's ticket and what it is compared with. Draws of a control share data and masks: they are averaged
    and count once."""

    accuracy: tuple[float, float]
    """Test accuracy at early stop, of the ticket and of the other."""
    stop: tuple[float, float]
    """The early-stopping iterations."""


def pairs(tickets: Branch, others: Branch) -> Iterator[Pair]:
    """Of the replicates that have both, what did not diverge."""
    for replicate in sorted(tickets.keys() & others.keys()):
        both = [[row for row in rows[replicate] if not row.measures.diverged] for rows in (tickets, others)]
        if all(both):
            yield Pair(
                (_mean(both[0], _accuracy), _mean(both[1], _accuracy)),
                (_mean(both[0], _stop), _mean(both[1], _stop)),
            )


@dataclass(frozen=True)
class PairedComparison:
    """How tickets do beside another branch."""

    accuracy: Paired
    """The ticket's test accuracy at early stop minus the other's, as a fraction."""
    stop: Paired
    """The ticket's early-stopping iteration divided by the other's."""

    @property
    def sooner(self) -> Values:
        """By replicate, how much sooner the ticket stops: the logarithm of the ratio, because to swap the two is then
        to change a sign."""
        return np.log(self.stop.b / self.stop.a)

    def more_to_be_better(self) -> int | None:
        """How many more replicates would probably show that tickets are better in one of the two, of which either
        could (so at half the chance of error each). None where no number would."""
        half = self.accuracy.alpha / 2
        both = (replace(self.accuracy, alpha=half), Paired(self.sooner, self.accuracy.b, half))
        return min((n for one in both if one.estimate > 0 and (n := one.more(0.0)) is not None), default=None)


def compare_branches(tickets: Branch, others: Branch, alpha: float) -> PairedComparison | None:
    """The comparison of two branches; None where fewer than two replicates have both."""
    paired = list(pairs(tickets, others))
    if len(paired) < 2:
        return None
    (accuracy, accuracy_other), (stop, stop_other) = (
        zip(*(getattr(pair, figure) for pair in paired), strict=True) for figure in ("accuracy", "stop")
    )
    return PairedComparison(Paired.difference(accuracy, accuracy_other, alpha), Paired.ratio(stop, stop_other, alpha))


def censored(row: Row) -> bool:
    """A minimum at the last iteration is where training ended, not an early stop: that would have come later."""
    return row.measures.stop_iteration == row.measures.iterations


def grid(rows: Sequence[Row]) -> int:
    """How many iterations lie between evaluations, as far as early stops tell: their greatest common divisor."""
    stops = (row.measures.stop_iteration for row in rows if not censored(row))
    return math.gcd(*(stop for stop in stops if stop is not None))


def _mean(rows: Sequence[Row], figure: Callable[[Row], float]) -> float:
    return float(np.mean([figure(row) for row in rows]))


def _accuracy(row: Row) -> float:
    assert row.measures.test_accuracy_at_stop is not None, "a run that did not diverge has all its figures"
    return row.measures.test_accuracy_at_stop


def _stop(row: Row) -> float:
    assert row.measures.stop_iteration is not None, "a run that did not diverge has all its figures"
    return row.measures.stop_iteration
