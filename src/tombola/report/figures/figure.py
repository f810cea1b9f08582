"""A figure: a chart, its numbers, its title and its caption."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Value = str | int | float | None
FigureRow = dict[str, Value]
"""One row of a figure's table."""

HEIGHT = 250
"""The height of charts with one panel, in pixels."""

HOVER = "hover"
"""The name of layers that only have tooltips; static pictures leave them out."""


@dataclass(frozen=True)
class Figure:
    """A figure of the report."""

    name: str
    """For its files and its anchor: letters, digits and dashes."""
    title: str
    caption: str
    chart: Mapping[str, Any]
    """Vega-Lite, without data and configuration."""
    rows: Sequence[FigureRow]
    cell: int = 0
    """The width of one panel in pixels, if the figure has several: it takes the full width of the page, with as many
    panels in a row as fit. Other figures are placed two in a row."""

    @property
    def columns(self) -> list[str]:
        """The columns of its table."""
        return list(self.rows[0])


@dataclass(frozen=True)
class MissingFigure:
    """A figure that cannot be drawn, and the reason."""

    name: str
    title: str
    reason: str


def figure(
    name: str, title: str, caption: str, chart: Any, rows: Sequence[FigureRow], cell: int = 0
) -> Figure | MissingFigure:
    """A figure of an Altair `chart` that reads `tombola.report.figures.chart.DATA`; a `MissingFigure` if there are no
    rows. It is wide if it has panels of the width `cell`."""
    if not rows:
        return MissingFigure(name, title, "these results have no data for it.")
    finite = [{key: _finite(value) for key, value in row.items()} for row in rows]
    # Validation takes as long as everything else; the tests draw every chart instead.
    drawn = (chart if cell else chart.properties(width="container", height=HEIGHT)).to_dict(validate=False)
    for key in ("$schema", "config"):
        drawn.pop(key, None)
    return Figure(name, title, caption, drawn, finite, cell)


def _finite(value: Value) -> Value:
    """A number that JSON can represent; None for others."""
    if not isinstance(value, float):
        return value
    return rounded(value) if math.isfinite(value) else None


def rounded(value: float) -> float:
    """Round to six digits, more than any figure shows."""
    return float(f"{value:.6g}")
