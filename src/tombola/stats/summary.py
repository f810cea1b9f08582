"""The summary of an experiment, as `tombola show --json` prints it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from tombola.experiments.results import Results
from tombola.experiments.row import Row
from tombola.experiments.sections import AUTO, VerdictSection
from tombola.stats.interval import mean_interval
from tombola.stats.paired_comparison import PairedComparison, censored
from tombola.stats.stability import lines, rewound_to, stability
from tombola.stats.verdict import Verdict, judge, smallest_winning

FIGURES = (
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
    """Levels, branches, intervals and verdicts, as JSON values. Accuracies are fractions."""
    recipe = results.recipe
    verdicts = judge(results.rows, recipe.replicates, recipe.verdict, recipe.controlled, recipe.no_ticket)
    found = smallest_winning(verdicts)
    levels = [_level(results.rows, verdict, recipe.verdict, recipe.rewound) for verdict in verdicts]
    return {
        "recipe": recipe.name,
        "replicates": recipe.replicates,
        "finished": results.finished,
        "runs": asdict(results.tally),
        "engines": results.engines,
        "method": recipe.rewind.method,
        "search": recipe.search.method,
        "no_ticket": recipe.no_ticket,
        "transfer": recipe.transfer.data.name if recipe.transfer else None,
        "criteria": recipe.verdict.model_dump(),
        "late": sum((row.level, row.branch) == (0, "ticket") and censored(row) for row in results.rows),
        "levels": levels,
        "stability": _stability(results),
        "smallest_winning": found and _named(next(level for level in levels if level["level"] == found.level)),
        "collapsed": [
            {"replicate": replicate, "level": level, "layer": layer} for replicate, level, layer in results.collapsed
        ],
    }


def _stability(results: Results) -> dict[str, Any] | None:
    """Where lines between trainings were walked: the barriers at each k, and what was rewound to."""
    recipe = results.recipe
    if recipe.stability is None:
        return None
    tolerance = recipe.stability.tolerance
    walked = lines(results.stability, recipe.stability.points)
    return {
        "tolerance": tolerance,
        "candidates": stability(walked, tolerance, recipe.verdict.confidence),
        "rewound_to": rewound_to(walked, tolerance) if recipe.rewind.to == AUTO and results.finished else None,
    }


def _named(level: dict[str, Any]) -> dict[str, Any]:
    return {name: level[name] for name in ("level", "weights", "weights_left")}


def _level(rows: Sequence[Row], verdict: Verdict, criteria: VerdictSection, rewound: bool) -> dict[str, Any]:
    here = [row for row in rows if row.level == verdict.level]
    branches = sorted({row.branch for row in here}, key=lambda branch: (branch != "ticket", branch))
    ticket = next(row for row in here if row.branch == "ticket")
    beside = verdict.dense
    accuracy = beside and _difference(beside, -criteria.accuracy_margin)
    stop = beside and _slowdown(beside, verdict.stop_margin)
    tested = {"accuracy": accuracy, "stop": stop if rewound else None}
    return {
        "level": verdict.level,
        "weights": ticket.weights,
        "weights_left": ticket.weights_left,
        "branches": {b: _branch([row for row in here if row.branch == b], criteria.confidence) for b in branches},
        "verdict": {
            "state": verdict.state,
            "reason": verdict.reason,
            "more_replicates": verdict.more,
            "instead": verdict.instead,
            "accurate": verdict.accurate,
            "fast": verdict.fast,
            "few": verdict.few,
            "stop_margin": verdict.stop_margin,
            "p_better_than_control": verdict.better,
            "winning": verdict.winning,
            "better": [name for name, found in tested.items() if found and found["p_better"] <= criteria.alpha],
            "accuracy_difference": accuracy,
            "stop_difference": stop,
        },
        "against": {
            name: {"accuracy_difference": _difference(control, 0.0), "stop_difference": _slowdown(control, 0.0)}
            for name, control in verdict.controls.items()
        },
    }


def _difference(beside: PairedComparison, least: float) -> dict[str, Any]:
    """Test accuracy at early stop, the ticket's minus the other's; bounds are one-sided. p-values are small where,
    surely, it is not less accurate by the margin (`p_not_worse`), more accurate (`p_better`), less (`p_worse`)."""
    accuracy = beside.accuracy
    return {
        "mean": accuracy.estimate,
        "low": accuracy.low,
        "high": accuracy.high,
        "p_not_worse": accuracy.p_above(least),
        "p_better": accuracy.p_above(0.0),
        "p_worse": accuracy.p_below(0.0),
    }


def _slowdown(beside: PairedComparison, margin: float) -> dict[str, Any]:
    """How much later the ticket stops, as a fraction of the other's early-stopping iteration; p-values likewise."""
    stop = beside.stop
    return {
        "mean": stop.estimate - 1,
        "low": None if stop.low is None else max(stop.low, 0.0) - 1,
        "high": None if stop.high is None else stop.high - 1,
        "p_not_worse": stop.p_below(1 + margin),
        "p_better": stop.p_below(1.0),
        "p_worse": stop.p_above(1.0),
    }


def _branch(rows: Sequence[Row], confidence: float) -> dict[str, Any]:
    """Each figure over replicates. The draws of a control within a replicate share its data, so they count once."""
    alive = [row for row in rows if not row.measures.diverged]
    by_replicate = [[row for row in alive if row.replicate == r] for r in sorted({row.replicate for row in alive})]
    branch: dict[str, Any] = {"runs": len(rows), "diverged": len(rows) - len(alive)}
    for figure in FIGURES:
        values = [float(np.mean([getattr(row.measures, figure) for row in draws])) for draws in by_replicate]
        branch[figure] = {"values": values, **(asdict(mean_interval(values, confidence)) if values else {})}
    return branch
