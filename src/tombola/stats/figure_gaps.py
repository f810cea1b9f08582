"""Figures that cannot be compared: missing ones, and those that are not finite."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tombola.experiments.results_schema import Row


def figure_gap(rows: Iterable[Row], judged: str) -> str:
    """The first training without a finite figure `judged`, other than those that diverged, in a line; empty if there
    is none."""
    for row in rows:
        value = row.figures.get(judged)
        if row.measures.diverged or (value is not None and math.isfinite(value)):
            continue
        others = f" (there: {', '.join(row.figures)})" if row.figures else ""
        what = f"missing{others}" if value is None else f"{value:g}"
        where = f"{row.branch} of replicate {row.replicate} at level {row.level}"
        return f'The figure "{judged}" is {what} for the {where}: it cannot be compared.'
    return ""
