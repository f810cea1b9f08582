"""Tickets compared with other branches of their level, paired over replicates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tombola.experiments.results_schema import Row
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

    accuracy: PairedTest
    """The ticket's test accuracy at early stop minus the other's, as a fraction."""
    stop: PairedTest
    """The ticket's early-stopping iteration divided by the other's."""

    @property
    def log_speedup(self) -> Values:
        """By replicate, the logarithm of the other's early-stopping iteration divided by the ticket's. Swapping the
        two changes its sign."""
        return np.log(self.stop.b / self.stop.a)

    def more_replicates_to_be_better(self) -> int | None:
        """How many more replicates would probably show that tickets are better, in accuracy or in early stop (each
        tested at half of alpha). None if no number would."""
        half = self.accuracy.alpha / 2
        tests = (replace(self.accuracy, alpha=half), PairedTest(self.log_speedup, self.accuracy.b, half))
        return min((n for t in tests if t.estimate > 0 and (n := t.more_replicates(0.0)) is not None), default=None)


def compare_branches(tickets: BranchRows, others: BranchRows, alpha: float) -> PairedComparison | None:
    """The comparison over the replicates that have both, without diverged runs; None for fewer than two replicates.

    The draws of a control share data and masks: they are averaged first and count once.
    """
    pairs = []
    for replicate in sorted(tickets.keys() & others.keys()):
        pair = [[row.measures for row in rows[replicate] if not row.measures.diverged] for rows in (tickets, others)]
        if all(pair):
            pairs.append(pair)
    if len(pairs) < 2:
        return None
    (tickets_accuracy, accuracy), (tickets_stop, stop) = (
        np.array([[np.mean([m[name] for m in draws]) for draws in pair] for pair in pairs]).T
        for name in ("test_accuracy_at_stop", "stop_iteration")
    )
    return PairedComparison(
        PairedTest.difference(tickets_accuracy, accuracy, alpha), PairedTest.ratio(tickets_stop, stop, alpha)
    )


def no_early_stop(row: Row) -> bool:
    """Whether validation loss was least at the last iteration, where training ended: the early stop is censored."""
    return row.measures.stop_iteration == row.measures.iterations


def evaluation_interval(rows: Sequence[Row]) -> int:
    """The number of iterations between evaluations, estimated by the greatest common divisor of the early stops."""
    stops = (row.measures.stop_iteration for row in rows if not no_early_stop(row))
    return math.gcd(*(stop for stop in stops if stop is not None))
