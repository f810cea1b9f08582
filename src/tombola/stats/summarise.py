"""Summarise the results of an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tombola.experiments.results import Results
from tombola.experiments.results_schema import EngineTotals, Row
from tombola.experiments.sections import AUTO, VerdictSection
from tombola.stats.error_barriers import barrier_summaries, interpolation_paths, stable_rewind_points
from tombola.stats.paired_comparison import PairedComparison, no_early_stop
from tombola.stats.summary import (
    MEASURES,
    BranchSummary,
    CollapsedLayer,
    ComparisonSummary,
    DifferenceSummary,
    LevelSummary,
    MeasureSummary,
    StabilitySummary,
    Summary,
    VerdictSummary,
    mean_interval,
)
from tombola.stats.verdict import Verdict, judge

VERDICT_FIELDS = VerdictSummary.model_fields.keys() - {"better_in", "accuracy_difference", "stop_difference"}
"""The fields of `VerdictSummary` that a `Verdict` has."""


def summarise(results: Results) -> dict[str, Any]:
    """Levels, branches, intervals and verdicts, as `tombola show --json` prints them. Accuracies are fractions."""
    return build_summary(results).to_dict()


def build_summary(results: Results) -> Summary:
    """The summary of `results`."""
    recipe = results.recipe
    verdicts = judge(
        results.rows, recipe.replicates, recipe.verdict, recipe.trains_verdict_control, recipe.no_ticket_reason
    )
    rewound, matrix_weights = recipe.no_ticket_reason is None, results.matrix_weights
    levels = [_level(results.rows, verdict, recipe.verdict, rewound, matrix_weights) for verdict in verdicts]
    return Summary(
        recipe=recipe.name,
        replicates=recipe.replicates,
        finished=results.finished,
        runs=results.tally,
        engines={name: EngineTotals.model_validate(work) for name, work in results.engines.items()},
        rewind_method=recipe.rewind.method,
        search_method=recipe.search.method,
        no_ticket=recipe.no_ticket_reason,
        transfer=recipe.transfer.data.name if recipe.transfer else None,
        criteria=recipe.verdict,
        dense_without_early_stop=sum(
            (row.level, row.branch) == (0, "ticket") and no_early_stop(row) for row in results.rows
        ),
        levels=levels,
        stability=_stability(results),
        smallest_winning=next((level for level in reversed(levels) if level.verdict.winning), None),
        collapsed=[CollapsedLayer(replicate=r, level=level, layer=layer) for r, level, layer in results.collapsed],
    )


def _stability(results: Results) -> StabilitySummary | None:
    recipe = results.recipe
    if recipe.stability is None:
        return None
    tolerance = recipe.stability.tolerance
    paths = interpolation_paths(results.stability, recipe.stability.points)
    return StabilitySummary(
        tolerance=tolerance,
        candidates=barrier_summaries(paths, tolerance, recipe.verdict.confidence),
        rewound_to=stable_rewind_points(paths, tolerance) if recipe.rewind.to == AUTO and results.finished else None,
    )


def _level(
    rows: Sequence[Row], verdict: Verdict, criteria: VerdictSection, rewound: bool, matrix_weights: int | None
) -> LevelSummary:
    rows = [row for row in rows if row.level == verdict.level]
    branches = sorted({row.branch for row in rows}, key=lambda branch: (branch != "ticket", branch))
    ticket = next(row for row in rows if row.branch == "ticket")
    return LevelSummary(
        level=verdict.level,
        weights=ticket.weights,
        weights_left=ticket.weights_left,
        weights_left_of_all=ticket.weights_left_of(matrix_weights),
        branches={b: _branch([row for row in rows if row.branch == b], criteria.confidence) for b in branches},
        verdict=_verdict(verdict, criteria, rewound),
        controls={name: _differences(comparison) for name, comparison in verdict.controls.items()},
    )


def _verdict(verdict: Verdict, criteria: VerdictSection, rewound: bool) -> VerdictSummary:
    dense = verdict.dense and _differences(verdict.dense, criteria.accuracy_margin, verdict.stop_margin)
    accuracy, stop = (dense.accuracy_difference, dense.stop_difference) if dense else (None, None)
    tested = {"accuracy": accuracy, "stop": stop if rewound else None}
    return VerdictSummary(
        **{name: getattr(verdict, name) for name in VERDICT_FIELDS},
        better_in=[name for name, found in tested.items() if found and found.p_better <= criteria.alpha],
        accuracy_difference=accuracy,
        stop_difference=stop,
    )


def _differences(
    comparison: PairedComparison, accuracy_margin: float = 0.0, stop_margin: float = 0.0
) -> ComparisonSummary:
    accuracy, stop = comparison.accuracy, comparison.stop
    return ComparisonSummary(
        accuracy_difference=DifferenceSummary(
            mean=accuracy.estimate,
            low=accuracy.low,
            high=accuracy.high,
            p_not_worse=accuracy.p_above(-accuracy_margin),
            p_better=accuracy.p_above(0.0),
            p_worse=accuracy.p_below(0.0),
        ),
        stop_difference=DifferenceSummary(
            mean=stop.estimate - 1,
            low=None if stop.low is None else max(stop.low, 0.0) - 1,
            high=None if stop.high is None else stop.high - 1,
            p_not_worse=stop.p_below(1 + stop_margin),
            p_better=stop.p_below(1.0),
            p_worse=stop.p_above(1.0),
        ),
    )


def _branch(rows: Sequence[Row], confidence: float) -> BranchSummary:
    """Every measure over replicates. The draws of a control share the replicate's data and are averaged first."""
    finite = [row for row in rows if not row.measures.diverged]
    replicates = [[row for row in finite if row.replicate == r] for r in sorted({row.replicate for row in finite})]
    measures = {}
    for name in MEASURES:
        values = [float(np.mean([_measured(row, name) for row in draws])) for draws in replicates]
        interval = mean_interval(values, confidence) if values else None
        measures[name] = MeasureSummary(values=values, interval=interval)
    return BranchSummary(runs=len(rows), diverged=len(rows) - len(finite), **measures)


def _measured(row: Row, name: str) -> float | None:
    """A figure of a run, or its generalisation gap: training minus test accuracy."""
    if not name.startswith("gap"):
        return row.measures[name]
    train, test = (row.measures[name.replace("gap", f"{split}_accuracy")] for split in ("train", "test"))
    return None if train is None or test is None else train - test
