"""Chooses the ticket of an experiment that is saved, and makes its provenance."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.experiments.experiment import Experiment
from tombola.experiments.results_collector import ResultsCollector
from tombola.experiments.results_schema import Row
from tombola.runs.run import Run
from tombola.runs.store import Store
from tombola.stats.summary import LevelSummary, Summary
from tombola.tickets.origin import provenance_of
from tombola.tickets.ticket import Ticket

ROUNDING = 1e-9
"""A mean at the margin counts as within it, in spite of rounding errors up to this size."""


def best_level(summary: Summary) -> LevelSummary | None:
    """The smallest winning level. If none wins, the sparsest level whose mean is within the margin; if there is no
    such level, the sparsest of all. None if there is only the dense network."""
    pruned = [level for level in summary.levels if level.level]
    within = [level for level in pruned if _within_margin(summary, level)]
    return summary.smallest_winning or next(reversed(within), next(reversed(pruned), None))


def _within_margin(summary: Summary, level: LevelSummary) -> bool:
    metric, margin, dense = summary.metric, summary.criteria.margin, summary.dense
    ours = level.branches["ticket"][metric.at_stop].interval
    theirs = dense[metric.at_stop].interval if dense else None
    if ours is None or theirs is None:
        return False
    allowed = margin.value * (abs(theirs.mean) if margin.relative else 1)
    return metric.sign * (ours.mean - theirs.mean) >= -allowed - ROUNDING


def ticket_of(
    experiment: Experiment,
    collector: ResultsCollector,
    summary: Summary,
    level: LevelSummary,
    store: Store,
    conclusion: str,
) -> Ticket:
    """The ticket of a level, from the replicate that is best on the validation examples; among equals, the first. The
    test examples choose nothing."""
    rows = [row for row in collector.rows if row.branch == "ticket"]
    best = _best([row for row in rows if row.level == level.level], summary)
    dense = next(row for row in rows if (row.level, row.replicate) == (0, best.replicate))
    request = collector.tickets[best.level, best.replicate]
    run, verdict = request.run, level.verdict.to_dict() | {"sentence": conclusion}
    provenance = provenance_of(
        experiment.config, best.replicate, request, collector.matrix_weights, best.measures, dense.measures, verdict
    )
    start = experiment.workload.masked_state(run, store.load_state)
    final = store.load_state(run.key)
    trained = {name: final[name] for name in start if name in final}
    drawn = run.start if isinstance(run, Run) else None
    return Ticket(run.mask, start, provenance, trained if trained.keys() == start.keys() else None, drawn=drawn)


def _best(rows: Sequence[Row], summary: Summary) -> Row:
    metric = summary.metric
    name = f"validation_{metric.name}_at_stop"

    def value(row: Row) -> float:
        measured = row.measures[name]
        return float("-inf") if measured is None else metric.sign * measured

    return max(rows, key=value)
