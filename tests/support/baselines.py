"""Experiments whose dense network was trained in several ways, without a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tests.support.recipes import tiny
from tests.support.verdict_rows import experiment_rows, verdict_row
from tombola.experiments.results import Results
from tombola.experiments.results_schema import Row, Tally
from tombola.stats.summarise import build_summary
from tombola.stats.summary import Summary

LEARNING_RATES = [0.01, 0.02, 0.05]
"""Of the draws 0, 1 and 2; the tickets have 0.005."""

WINNING = [0.949, 0.951, 0.95, 0.952, 0.948]
"""Accuracies of tickets that are within a point of dense networks with 0.95."""


def baseline_row(replicate: int, draw: int, validation: float, test: float, **options: Any) -> Row:
    """A row of the dense network, trained as the draw says."""
    row = verdict_row(replicate, 0, test, 500, branch="baseline", **options)
    at_stop = {"validation_accuracy_at_stop": validation}
    return replace(row, draw=draw, measures=row.measures.model_copy(update=at_stop))


def baseline_rows(figures: Sequence[tuple[float, float]], replicates: int = 5) -> list[Row]:
    """For each draw its accuracies on validation and test examples, the same in all replicates."""
    return [baseline_row(r, draw, *each) for draw, each in enumerate(figures) for r in range(replicates)]


def tuned_summary(
    figures: Sequence[tuple[float, float]],
    tickets: dict[int, Sequence[float]] | None = None,
    change: Callable[[list[Row]], list[Row]] = lambda rows: rows,
) -> Summary:
    """The summary of an experiment with a margin of a point. The dense network as the tickets are trained has 95% in
    validation and test, its other trainings the given accuracies; `tickets` are test accuracies by level."""
    rows = experiment_rows(WINNING, [300] * 5)[:5] + baseline_rows(figures)
    for level, accuracies in (tickets or {2: WINNING}).items():
        rows += [verdict_row(replicate, level, each, 300) for replicate, each in enumerate(accuracies)]
    recipe = tiny(
        replicates=5,
        controls={},
        verdict__margin=0.01,
        baseline={"lr": LEARNING_RATES[: len(figures)]} if figures else None,
    )
    return build_summary(Results(recipe, change(rows), True, Tally()))
