"""The summary of an experiment, as `tombola show --json` prints it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from tombola.evidence.interval import Interval, mean_interval
from tombola.evidence.verdict import Verdict, judge, smallest_winning
from tombola.results import Results
from tombola.table import Row

FIGURES = (
    "test_accuracy_at_stop",
    "stop_iteration",
    "test_accuracy",
    "train_accuracy",
    "train_accuracy_at_stop",
    "validation_accuracy_at_stop",
)


def summarise(results: Results) -> dict[str, Any]:
    """Levels, branches, intervals and verdicts, as JSON values. Accuracies are fractions."""
    recipe = results.recipe
    verdicts = judge(results.rows, recipe.replicates, recipe.verdict)
    found = smallest_winning(verdicts)
    levels = [_level(results.rows, verdict, recipe.verdict.confidence) for verdict in verdicts]
    return {
        "recipe": recipe.name,
        "replicates": recipe.replicates,
        "finished": results.finished,
        "runs": asdict(results.tally),
        "engines": results.engines,
        "criteria": recipe.verdict.model_dump(),
        "levels": levels,
        "smallest_winning": found and _named(next(level for level in levels if level["level"] == found.level)),
        "collapsed": [
            {"replicate": replicate, "level": level, "layer": layer} for replicate, level, layer in results.collapsed
        ],
    }


def _named(level: dict[str, Any]) -> dict[str, Any]:
    return {name: level[name] for name in ("level", "weights", "weights_left")}


def _level(rows: Sequence[Row], verdict: Verdict, confidence: float) -> dict[str, Any]:
    here = [row for row in rows if row.level == verdict.level]
    branches = sorted({row.branch for row in here}, key=lambda branch: (branch != "ticket", branch))
    return {
        "level": verdict.level,
        "weights": here[0].weights,
        "weights_left": here[0].weights_left,
        "branches": {b: _branch([row for row in here if row.branch == b], confidence) for b in branches},
        "verdict": {
            "accurate": verdict.accurate,
            "fast": verdict.fast,
            "few": verdict.few,
            "reached": verdict.reached,
            "winning": verdict.winning,
            "accuracy_difference": _interval(verdict.accuracy_difference),
            "stop_difference": _interval(verdict.stop_difference),
        },
    }


def _branch(rows: Sequence[Row], confidence: float) -> dict[str, Any]:
    """Each figure over replicates. The draws of a control within a replicate share its data, so they count once."""
    alive = [row for row in rows if not row.measures.diverged]
    by_replicate = [[row for row in alive if row.replicate == r] for r in sorted({row.replicate for row in alive})]
    branch: dict[str, Any] = {"runs": len(rows), "diverged": len(rows) - len(alive)}
    for figure in FIGURES:
        values = [float(np.mean([getattr(row.measures, figure) for row in draws])) for draws in by_replicate]
        branch[figure] = {
            "values": values,
            **(_interval(mean_interval(values, confidence) if values else None) or {}),
        }
    return branch


def _interval(interval: Interval | None) -> dict[str, float | None] | None:
    return None if interval is None else asdict(interval)
