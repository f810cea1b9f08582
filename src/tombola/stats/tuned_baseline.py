"""The tuned baseline: the best of several trainings of the dense network, and tickets compared with it.

The best is chosen on the validation examples, and compared by the judged metric;
`docs/explanation/verdict.md` describes both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tombola.experiments.margin import Margin
from tombola.experiments.metric import Metric
from tombola.experiments.results import Results
from tombola.experiments.results_schema import Row
from tombola.stats.paired_comparison import BranchRows, PairedComparison, compare_branches, rows_by_level
from tombola.stats.verdict import FEWEST_REPLICATES
from tombola.studies.request import BASELINE


def without_baselines(rows: Sequence[Row]) -> list[Row]:
    """The rows of tickets and controls."""
    return [row for row in rows if row.branch != BASELINE]


@dataclass(frozen=True)
class TunedBaseline:
    """The trainings of the dense network, and which of them is best."""

    trainings: Sequence[BranchRows]
    """The rows of each training: first the one that tickets are trained like, then the draws of branch `baseline`."""
    labels: Sequence[str]
    """A different label for each training."""
    replicates: int
    metric: Metric
    """The judged metric."""
    chosen_by: Metric
    """The metric by which the best training is chosen."""
    copies: Sequence[int] = ()
    """The replicates that are copies of others."""

    @classmethod
    def of(cls, results: Results) -> TunedBaseline | None:
        """The tuned baseline of an experiment; None if its dense network is trained in one way only."""
        config, labels = results.config, results.config.baseline_labels
        if not labels:
            return None
        dense = rows_by_level(results.rows).get(0, {})
        tried = dense.get(BASELINE, {})
        others: list[BranchRows] = [
            {r: [row] for r, draws in tried.items() for row in draws if row.draw == draw}
            for draw in range(len(labels) - 1)
        ]
        chosen_by = config.chosen_by(row.measures for row in results.rows)
        trainings, metric = [dense.get("ticket", {}), *others], results.metric
        return cls(trainings, labels, config.replicates, metric, chosen_by, results.copies)

    @cached_property
    def best(self) -> int | None:
        """The index of the training with the best mean on the validation examples at early stop, over replicates;
        among equals, the first. A training that diverged in a replicate is not chosen. None if all trainings
        diverged, or some are not finished."""
        if any(len(rows) < self.replicates for rows in self.trainings):
            return None
        means = [self._mean(rows) for rows in self.trainings]
        return int(np.argmax(means)) if max(means) > -np.inf else None

    def _mean(self, rows: BranchRows) -> float:
        """The mean by which the best is chosen, with the sign that makes higher better; -inf if a value is
        missing."""
        values = [row.measures[self.chosen_by.at_stop] for draws in rows.values() for row in draws]
        finite = [value for value in values if value is not None]
        return self.chosen_by.sign * float(np.mean(finite)) if len(finite) == len(values) else -np.inf

    def compare(self, tickets: BranchRows, alpha: float) -> PairedComparison | None:
        """Tickets compared with the best training. None without a best one, or if fewer than two replicates have
        both."""
        if self.best is None:
            return None
        return compare_branches(tickets, self.trainings[self.best], alpha, self.metric)

    def decide(self, comparison: PairedComparison, margin: Margin) -> tuple[bool, bool]:
        """Whether tests show that tickets are worse by at most the margin, and whether they show that tickets are
        worse by more. Both are False with too few replicates, or if some diverged or are copies."""
        if self.copies or comparison.gain.n < max(self.replicates, FEWEST_REPLICATES):
            return False, False
        tested, worst = comparison.worse_by(margin)
        alpha = comparison.gain.alpha
        return tested.p_above(worst) <= alpha, tested.p_below(worst) <= alpha
