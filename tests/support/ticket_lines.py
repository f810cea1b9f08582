"""Rows of `stability.parquet` with chosen errors, and a summary with verdicts beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.support.recipes import tiny
from tests.support.verdict_rows import verdict_row
from tombola.experiments.results import Results
from tombola.experiments.results_schema import Tally
from tombola.report.report_data import ReportData
from tombola.stats.summarise import build_summary
from tombola.studies.request import TicketLine


def line_rows(
    line: TicketLine,
    level: int,
    errors: Sequence[float | None],
    replicate: int = 0,
    pair: int = 0,
    k: int = 0,
) -> list[dict[str, Any]]:
    """The rows of one line between tickets with the same error on all splits; None if the run diverged."""
    accuracies = [None if error is None else 1 - error for error in errors]
    place = {"replicate": replicate, "k": k, "pair": pair, "line": line, "level": level}
    return [
        place | {"share": share} | {f"{split}_accuracy": accuracy for split in ("train", "validation", "test")}
        for share, accuracy in zip(np.linspace(0, 1, len(errors)).tolist(), accuracies, strict=True)
    ]


def connected_experiment() -> Results:
    """Five replicates. Levels 1 and 2 win, the sparser ones are less accurate; level 2 and 4 have a barrier of 20
    points to the level before, and only level 4 between batch orders."""
    accuracies, stops = [0.95, 0.95, 0.95, 0.8, 0.7], [500, 300, 300, 600, 600]
    rows = [
        verdict_row(replicate, level, accuracy + 0.001 * replicate, stop + replicate)
        for replicate in range(5)
        for level, (accuracy, stop) in enumerate(zip(accuracies, stops, strict=True))
    ]
    smooth, hill = [0.1, 0.1, 0.1], [0.1, 0.3, 0.1]
    points = []
    for replicate in range(5):
        for level in range(5):
            points += line_rows("order", level, hill if level == 4 else smooth, replicate)
            if level:
                points += line_rows("predecessor", level, hill if level in (2, 4) else smooth, replicate)
    recipe = tiny(replicates=5, search__levels=4, controls={}, stability={"tickets": True, "points": 3})
    return Results(recipe, rows, True, Tally(len(rows)), stability=points)


def connected_data(folder: Any) -> ReportData:
    """The same as the data of a report."""
    results = connected_experiment()
    return ReportData(folder, results, build_summary(results))
