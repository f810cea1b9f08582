"""Summarise the results of an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

import numpy as np

from tombola.experiments.experiment import count_runs
from tombola.experiments.experiment_title import experiment_title
from tombola.experiments.margin import Margin
from tombola.experiments.metric import Metric
from tombola.experiments.recipe import Recipe
from tombola.experiments.results import Results
from tombola.experiments.results_schema import EngineTotals, Row
from tombola.experiments.sections import AUTO, VerdictSection
from tombola.stats.double_descent import double_descent
from tombola.stats.error_barriers import BarrierCriteria, barrier_summaries, interpolation_paths, stable_rewind_points
from tombola.stats.judge_looks import judge_looks, summarise_looks
from tombola.stats.margin_tests import metric_margin_test, stop_margin_test
from tombola.stats.paired_comparison import PairedComparison, no_early_stop, was_timed
from tombola.stats.summary import (
    BaselineComparison,
    BaselineSummary,
    BranchSummary,
    CollapsedLayer,
    ComparisonSummary,
    DenseTraining,
    DifferenceSummary,
    LevelSummary,
    MeasureSummary,
    StabilitySummary,
    Summary,
    VerdictSummary,
    mean_interval,
)
from tombola.stats.ticket_barriers import ticket_barriers
from tombola.stats.tuned_baseline import TunedBaseline, without_baselines
from tombola.stats.verdict import Verdict

VERDICT_FIELDS = VerdictSummary.model_fields.keys() - {
    "better_in",
    "metric_test",
    "stop_test",
    "tuned_baseline",
    *ComparisonSummary.model_fields,
}
"""The fields of `VerdictSummary` that a `Verdict` has."""

NO_MARGIN = Margin(0.0)

RECIPE_MEASURES = (
    "test_accuracy_at_stop",
    "stop_iteration",
    "test_accuracy",
    "train_accuracy",
    "train_accuracy_at_stop",
    "gap_at_stop",
    "gap",
    "validation_accuracy_at_stop",
)


def summarise(results: Results) -> dict[str, Any]:
    """Levels, branches, intervals and verdicts, as `tombola show --json` prints them. Accuracies are fractions."""
    return build_summary(results).to_dict()


def build_summary(results: Results) -> Summary:
    """The summary of `results`; computed once, because the tests take a while."""
    return results.derived(_summary)


def _summary(results: Results) -> Summary:
    config, metric, rows = results.config, results.metric, without_baselines(results.rows)
    rewound = config.no_ticket_reason is None
    verdicts = verdicts_of(results)
    names, tuned = _measure_names(results, metric), TunedBaseline.of(results)
    levels = [_level(results, verdict, metric, names, rewound, tuned) for verdict in verdicts]
    return Summary(
        recipe=config.name,
        title=experiment_title(config, results.folder),
        replicates=config.replicates,
        finished=results.finished,
        runs=results.tally,
        expected_runs=count_runs(config),
        engines={name: EngineTotals.model_validate(work) for name, work in results.engines.items()},
        rewind_method=config.rewind.method,
        search_method=config.search.method,
        no_ticket=config.no_ticket_reason,
        transfer=config.transferred_to.data.name if config.transferred_to else None,
        criteria=config.verdict,
        metric=metric,
        timed=was_timed(rows),
        copies=results.copies,
        looks=summarise_looks(config.verdict, config.replicates, [stage.replicates for stage in results.stages]),
        dense_without_early_stop=sum((row.level, row.branch) == (0, "ticket") and no_early_stop(row) for row in rows),
        levels=levels,
        stability=_stability(results),
        baseline=None if tuned is None else _baseline(tuned, levels, names, config.verdict.confidence),
        double_descent=double_descent(results),
        smallest_winning=next((level for level in reversed(levels) if level.verdict.winning), None),
        collapsed=[CollapsedLayer(replicate=r, level=level, layer=layer) for r, level, layer in results.collapsed],
    )


def verdicts_of(results: Results) -> list[Verdict]:
    """The verdict on every level that has tickets, from dense to sparse."""
    config = results.config
    return judge_looks(
        without_baselines(results.rows),
        config.replicates,
        config.verdict,
        config.trains_verdict_control,
        config.no_ticket_reason,
        results.metric,
        results.copies,
    )


def _stability(results: Results) -> StabilitySummary | None:
    config, section, metric = results.config, results.config.stability, results.barrier_metric
    if section is None:
        return None
    criteria = BarrierCriteria(section.tolerance, config.verdict.confidence, config.worst_barrier)
    paths = interpolation_paths(results.stability, section.points, metric=metric)
    return StabilitySummary(
        metric=metric,
        tolerance=section.tolerance,
        candidates=barrier_summaries(paths, criteria),
        tickets=ticket_barriers(results.stability, section.points, criteria, metric),
        rewound_to=stable_rewind_points(paths, criteria) if config.rewind.to == AUTO and results.finished else None,
    )


def _baseline(
    tuned: TunedBaseline, levels: Sequence[LevelSummary], names: Sequence[str], confidence: float
) -> BaselineSummary:
    trainings = []
    for label, by_replicate in zip(tuned.labels, tuned.trainings, strict=True):
        rows = [row for draws in by_replicate.values() for row in draws]
        figures, late = _branch(rows, names, confidence), sum(map(no_early_stop, rows))
        trainings.append(DenseTraining(training=label, figures=figures, without_early_stop=late))
    winning = [level for level in levels if level.verdict.winning]
    held = [*takewhile(lambda level: (found := level.verdict.tuned_baseline) and found.accurate, winning)]
    smallest = held[-1].level if held else None
    return BaselineSummary(trainings=trainings, chosen_by=tuned.chosen_by, best=tuned.best, smallest_winning=smallest)


def _level(
    results: Results,
    verdict: Verdict,
    metric: Metric,
    names: Sequence[str],
    rewound: bool,
    tuned: TunedBaseline | None,
) -> LevelSummary:
    criteria = results.config.verdict
    rows = [row for row in without_baselines(results.rows) if row.level == verdict.level]
    branches = sorted({row.branch for row in rows}, key=lambda branch: (branch != "ticket", branch))
    tickets = [row for row in rows if row.branch == "ticket"]
    count, all_matrix = len(tickets), results.matrix_weights
    weights, total = sum(row.weights for row in tickets), sum(row.weights_total for row in tickets)
    together = replace(tickets[0], weights=weights, weights_total=total)
    work, dense_work = (_multiply_adds(results, level) for level in (verdict.level, 0))
    return LevelSummary(
        level=verdict.level,
        weights=round(together.weights / count),
        weights_left=together.weights_left,
        weights_left_of_all=together.weights_left_of(None if all_matrix is None else all_matrix * count),
        multiply_adds=work,
        multiply_adds_left=work / dense_work if work is not None and dense_work else None,
        branches={b: _branch([row for row in rows if row.branch == b], names, criteria.confidence) for b in branches},
        verdict=_verdict(verdict, criteria, metric, rewound, _tuned(tuned, rows, criteria, verdict)),
        controls={name: _differences(comparison, metric) for name, comparison in verdict.controls.items()},
    )


def _multiply_adds(results: Results, level: int) -> float | None:
    """The mean multiply-adds of the weights that tickets of a level have left; None if unknown."""
    tickets = [layer for layer in results.layers if (layer["branch"], layer["level"]) == ("ticket", level)]
    counts = [layer["multiply_adds"] for layer in tickets]
    if not counts or None in counts:
        return None
    return float(sum(counts)) / len({layer["replicate"] for layer in tickets})


def _tuned(
    tuned: TunedBaseline | None, rows: Sequence[Row], criteria: VerdictSection, verdict: Verdict
) -> BaselineComparison | None:
    """The tickets among the rows of a level, compared with the best training, at the error rate of the look; None for
    the dense network."""
    if tuned is None:
        return None
    tickets = {row.replicate: [row] for row in rows if row.branch == "ticket" and row.level > 0}
    alpha = verdict.dense.gain.alpha if verdict.dense else criteria.alpha
    comparison = tuned.compare(tickets, alpha)
    if comparison is None or tuned.best is None:
        return None
    accurate, worse = tuned.decide(comparison, criteria.margin)
    return BaselineComparison(
        training=tuned.labels[tuned.best],
        accurate=accurate,
        worse=worse,
        **_difference(comparison, tuned.metric, criteria.margin).model_dump(),
    )


def _measure_names(results: Results, metric: Metric) -> list[str]:
    """The measures of a branch: for recipes always the same, otherwise the judged metric and the other figures."""
    if isinstance(results.config, Recipe):
        return [*RECIPE_MEASURES]
    figures = (name for row in results.rows for name in row.measures.figures)
    return [*dict.fromkeys([metric.at_stop, "stop_iteration", metric.at_end, *figures])]


def _verdict(
    verdict: Verdict, criteria: VerdictSection, metric: Metric, rewound: bool, tuned: BaselineComparison | None
) -> VerdictSummary:
    dense = verdict.dense and _differences(verdict.dense, metric, criteria.margin, verdict.stop_margin)
    difference, stop = (dense.difference, dense.stop_difference) if dense else (None, None)
    alpha = verdict.dense.gain.alpha if verdict.dense else criteria.alpha  # that of the look
    tested = {metric.name: difference, "stop": stop if rewound else None}
    return VerdictSummary(
        **{name: getattr(verdict, name) for name in VERDICT_FIELDS},
        better_in=[name for name, found in tested.items() if found and found.p_better <= alpha],
        metric=metric.name,
        difference=difference,
        stop_difference=stop,
        metric_test=metric_margin_test(verdict.dense, metric, criteria.margin) if verdict.dense else None,
        stop_test=stop_margin_test(verdict.dense, verdict.stop_margin) if verdict.dense else None,
        tuned_baseline=tuned,
    )


def _differences(
    comparison: PairedComparison, metric: Metric, margin: Margin = NO_MARGIN, stop_margin: float = 0.0
) -> ComparisonSummary:
    stop = comparison.stop
    return ComparisonSummary(
        metric=metric.name,
        difference=_difference(comparison, metric, margin),
        stop_difference=None
        if stop is None
        else DifferenceSummary(
            mean=stop.estimate - 1,
            low=None if stop.low is None else max(stop.low, 0.0) - 1,
            high=None if stop.high is None else stop.high - 1,
            p_not_worse=stop.p_below(1 + stop_margin),
            p_better=stop.p_below(1.0),
            p_worse=stop.p_above(1.0),
        ),
    )


def _difference(comparison: PairedComparison, metric: Metric, margin: Margin) -> DifferenceSummary:
    """The difference in the metric, with its original sign."""
    gain = comparison.gain
    tested, worst = comparison.worse_by(margin)
    low, high = metric.bounds(gain.low, gain.high)
    return DifferenceSummary(
        mean=metric.sign * gain.estimate,
        low=low,
        high=high,
        p_not_worse=tested.p_above(worst),
        p_better=gain.p_above(0.0),
        p_worse=gain.p_below(0.0),
    )


def _branch(rows: Sequence[Row], names: Sequence[str], confidence: float) -> BranchSummary:
    """Every measure over replicates. The draws of a control share the replicate's data and are averaged first."""
    finite = [row for row in rows if not row.measures.diverged]
    replicates = [[row for row in finite if row.replicate == r] for r in sorted({row.replicate for row in finite})]
    measures = {}
    for name in names:
        measured = ([v for row in draws if (v := _measured(row, name)) is not None] for draws in replicates)
        values = [float(np.mean(draws)) for draws in measured if draws]
        interval = mean_interval(values, confidence) if values else None
        measures[name] = MeasureSummary(values=values, interval=interval)
    return BranchSummary(runs=len(rows), diverged=len(rows) - len(finite), measures=measures)


def _measured(row: Row, name: str) -> float | None:
    """A figure of a run, or its generalisation gap: training minus test accuracy."""
    if not name.startswith("gap"):
        return row.measures[name]
    train, test = (row.measures[name.replace("gap", f"{split}_accuracy")] for split in ("train", "test"))
    return None if train is None or test is None else train - test
