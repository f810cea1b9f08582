"""Report data with chosen rows, layers and curves, without a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.recipes import tiny
from tests.support.verdict_rows import diverged, verdict_row
from tombola.experiments.layer_stats import BINS
from tombola.experiments.results import Results
from tombola.experiments.results_schema import Row, RunCost, Tally
from tombola.report.report_data import ReportData
from tombola.stats.summarise import build_summary


def report_row(replicate: int, level: int, branch: str = "ticket", failed: bool = False) -> Row:
    """A row: from level to level test accuracy falls from 0.9 by 0.01, and early stop rises from 100 by 10."""
    accuracy = 0.9 - 0.01 * level + 0.001 * replicate - (0.02 if branch != "ticket" else 0)
    row = verdict_row(replicate, level, accuracy, 100 + 10 * level + replicate, branch=branch)
    return diverged(row) if failed else row


def layer_row(replicate: int, level: int, name: str = "fc.weight", branch: str = "ticket") -> dict[str, Any]:
    """A layer of 64 weights, half of which are pruned at each level; all initial weights are in the middle bin."""
    weights = 64 // 2**level
    histogram = [0] * BINS
    histogram[BINS // 2] = weights
    return {
        "replicate": replicate,
        "level": level,
        "branch": branch,
        "draw": 0,
        "layer": name,
        "weights": weights,
        "weights_total": 64,
        "sign_changes": weights // 4,
        "distance": 3.0,
        "start_norm": 2.0,
        "start_histogram": histogram,
        "input_connections": [weights // 4 + replicate, 0, 0, weights // 4],
        "outputs": None,
        "inputs": None,
        "multiply_adds": None,
    }


def unit_row(replicate: int, level: int, name: str = "fc.weight", **left: int | None) -> dict[str, Any]:
    """A layer of a search by units: of 8 outputs and 8 inputs half are pruned at each level."""
    units = {"outputs": 8 // 2**level, "inputs": 8 // 2**level, "multiply_adds": 640 // 4**level}
    return layer_row(replicate, level, name) | units | left


def curve_points(
    replicate: int, level: int, iterations: Sequence[int], branch: str = "ticket"
) -> list[dict[str, Any]]:
    """Validation accuracy and loss that depend only on the iteration."""
    place = {"replicate": replicate, "level": level, "branch": branch, "draw": 0}
    return [
        {**place, "iteration": i, "train_loss": 1 / i, "validation_accuracy": i / 1000 + 0.1 * replicate}
        for i in iterations
    ]


def report_data(
    rows: Sequence[Row],
    layers: Sequence[dict[str, Any]] = (),
    curves: Sequence[dict[str, Any]] = (),
    inputs: tuple[int, ...] = (2, 2),
    replicates: int = 2,
) -> ReportData:
    """Results with these rows."""
    costs = [
        RunCost(level, branch, 2, 3.0 / (1 + level)) for level, branch in sorted({(r.level, r.branch) for r in rows})
    ]
    results = Results(
        tiny(replicates=replicates), list(rows), True, Tally(len(rows)), list(layers), {}, costs, inputs, {}
    )
    return ReportData(Path("results/made"), results, build_summary(results), list(curves))
