"""Tickets compared with other branches of their level, paired over replicates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tombola.experiments.margin import Margin
from tombola.experiments.metric import Metric
from tombola.experiments.results_schema import Row
from tombola.runs.outcome import Measures
from tombola.stats.paired_test import PairedTest, Values

BranchRows = dict[int, list[Row]]
"""The rows of one branch at one level, by replicate; several if a control has several draws."""


def rows_by_level(rows: Sequence[Row]) -> dict[int, dict[str, BranchRows]]:
    """Rows by level, in order, then branch, then replicate."""
    levels: dict[int, dict[str, BranchRows]] = {}
    for row in sorted(rows, key=lambda row: (row.level, row.replicate, row.draw)):
        levels.setdefault(row.level, {}).setdefault(row.branch, {}).setdefault(row.replicate, []).append(row)
    return levels


@dataclass(frozen=True)
class PairedComparison:
    """Tickets compared with another branch."""

    gain: PairedTest
    """The ticket's judged metric at early stop minus the other's, with the sign that makes higher better."""
    others: Values
    """The metric of the other branch."""
    stop: PairedTest | None
    """The ticket's early-stopping iteration divided by the other's; None if early stop was not asked for."""

    def worse_by(self, margin: Margin) -> tuple[PairedTest, float]:
        """The test of the gain and, in its units, the gain of a ticket that is worse by exactly the margin. For a
        relative margin m, a gain d of a dense figure y is tested by d + m |y|, which needs no estimate of y."""
        if margin.relative and self.others.any():
            return replace(self.gain, b=np.abs(self.others)), -margin.value
        return self.gain, 0.0 if margin.relative else -margin.value

    @property
    def log_speedup(self) -> Values | None:
        """By replicate, the logarithm of the other's early-stopping iteration divided by the ticket's. Swapping the
        two changes its sign."""
        return None if self.stop is None else np.log(self.stop.b / self.stop.a)

    @property
    def gains(self) -> list[Values]:
        """By replicate, how much better tickets are in each measure; centred at 0 if they are not better."""
        return [self.gain.a] if self.log_speedup is None else [self.gain.a, self.log_speedup]

    def more_replicates_to_be_better(self) -> int | None:
        """How many more replicates would probably show that tickets are better in the metric or in early stop; alpha
        is divided between the two. None if no number would."""
        alpha = self.gain.alpha / len(self.gains)
        tests = [PairedTest(values, self.gain.b, alpha) for values in self.gains]
        return min((n for t in tests if t.estimate > 0 and (n := t.more_replicates(0.0)) is not None), default=None)


def compare_branches(
    tickets: BranchRows, others: BranchRows, alpha: float, metric: Metric
) -> PairedComparison | None:
    """The comparison over the replicates that have both branches, without runs that diverged or lack the metric; None
    for fewer than two replicates.

    The draws of a control share data and masks, so they are averaged first and count once.
    """
    pairs = []
    for replicate in sorted(tickets.keys() & others.keys()):
        pair = [[row.measures for row in rows[replicate] if measured(row, metric)] for rows in (tickets, others)]
        if all(pair):
            pairs.append(pair)
    if len(pairs) < 2:
        return None
    ours, theirs = metric.sign * _means(pairs, metric.at_stop)
    timed = all(m.stop_iteration is not None for pair in pairs for draws in pair for m in draws)
    stop = None
    if timed:
        our_stop, their_stop = _means(pairs, "stop_iteration")
        stop = PairedTest.ratio(our_stop, their_stop, alpha)
    return PairedComparison(PairedTest.difference(ours, theirs, alpha), theirs, stop)


def _means(pairs: Sequence[Sequence[Sequence[Measures]]], name: str) -> Values:
    """The means over draws, shape (2, pairs)."""
    return np.array([[np.mean([m[name] for m in draws]) for draws in pair] for pair in pairs]).T


def measured(row: Row, metric: Metric) -> bool:
    """Whether the training did not diverge, and has the metric."""
    return not row.measures.diverged and row.measures[metric.at_stop] is not None


def was_timed(rows: Iterable[Row]) -> bool:
    """Whether early stop was asked for: a training was evaluated before its end."""
    return any(row.measures.stop_iteration is not None for row in rows)


def no_early_stop(row: Row) -> bool:
    """Whether the last evaluation was the best, so that training ended before the early stop (it is censored)."""
    return row.measures.stop_iteration == row.measures.iterations


def evaluation_interval(rows: Sequence[Row]) -> int:
    """The number of iterations between evaluations, estimated by the greatest common divisor of the early stops."""
    stops = (row.measures.stop_iteration for row in rows if not no_early_stop(row))
    return math.gcd(*(stop for stop in stops if stop is not None))
