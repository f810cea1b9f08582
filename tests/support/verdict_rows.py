"""Rows of experiments with chosen accuracies and early stops, to be judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tombola.experiments.results_schema import Row
from tombola.runs.outcome import Measures


def verdict_row(
    replicate: int, level: int, accuracy: float, stop: int, *, iterations: int = 1000, branch: str = "ticket"
) -> Row:
    """A row of this test accuracy and early stop; every level halves 1000 weights."""
    measures = Measures(
        diverged=False,
        iterations=iterations,
        stop_iteration=stop,
        validation_loss_at_stop=0.1,
        validation_accuracy_at_stop=accuracy,
        train_accuracy_at_stop=1.0,
        test_accuracy_at_stop=accuracy,
        train_accuracy=1.0,
        test_accuracy=accuracy,
    )
    return Row(replicate, level, branch, 0, 1000 // 2**level or 1, 1000, "key", measures)


def experiment_rows(accuracies: Sequence[float], stops: Sequence[int], level: int = 2) -> list[Row]:
    """Dense networks of accuracy 0.95 that stop at 500, and a ticket for each."""
    dense = [verdict_row(replicate, 0, 0.95, 500) for replicate in range(len(accuracies))]
    pairs = zip(accuracies, stops, strict=True)
    return dense + [verdict_row(replicate, level, a, s) for replicate, (a, s) in enumerate(pairs)]


def diverged(row: Row) -> Row:
    """The row as if its run had diverged."""
    return replace(row, measures=Measures(diverged=True, iterations=10))
