"""Figure: a chart, the numbers in it, and the words beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

Value = str | int | float | None
Numbers = dict[str, Value]
"""One line of a figure's table."""

DATA = alt.NamedData("rows")
"""What charts read. The rows stand beside the chart, once: for the chart and for the CSV file."""

HOVER = "hover"
"""Layers of this name only carry tooltips; they are left out of still pictures."""


@dataclass(frozen=True)
class Figure:
    """A figure of the report."""

    name: str
    """Of its files and its anchor: letters, digits and dashes."""
    title: str
    caption: str
    chart: Mapping[str, Any]
    """Vega-Lite, without data and configuration."""
    rows: Sequence[Numbers]
    wide: bool = False
    """Takes the width of the page; others stand two side by side."""
    cell: int = 0
    """Of small multiples: the width of one in pixels. As many stand in a row as fit."""

    @property
    def columns(self) -> list[str]:
        """The columns of its table."""
        return list(self.rows[0])


@dataclass(frozen=True)
class Absent:
    """A figure that cannot be drawn, and why."""

    title: str
    reason: str


def figure(
    name: str,
    title: str,
    caption: str,
    chart: Any,
    rows: Sequence[Numbers],
    wide: bool = False,
    cell: int = 0,
) -> Figure | Absent:
    """A figure of an Altair `chart` that reads `DATA`; absent where there is nothing to draw."""
    if not rows:
        return Absent(title, "there are no figures for it in these results.")
    finite = [{key: _finite(value) for key, value in row.items()} for row in rows]
    # Without validation, which takes as long as everything else: the tests draw every chart.
    drawn = chart.to_dict(validate=False)
    for key in ("$schema", "config"):
        drawn.pop(key, None)
    return Figure(name, title, caption, drawn, finite, wide, cell)


def _finite(value: Value) -> Value:
    """JSON knows no infinity."""
    if not isinstance(value, float):
        return value
    return rounded(value) if math.isfinite(value) else None


def rounded(value: float) -> float:
    """Six digits are more than any figure shows."""
    return float(f"{value:.6g}")
