"""A figure: a chart, its numbers, its title and its caption."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

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
    def panels(self) -> int:
        """The number of panels that are made as wide as the page allows; 0 if its width is that of `cell`, or it has
        only one panel."""
        return len(self.chart.get("concat", ()))

    @property
    def wide(self) -> bool:
        """Whether it takes the full width of the page."""
        return bool(self.cell or self.panels)

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
    panels = cell or isinstance(chart, alt.ConcatChart)
    drawn = (chart if panels else chart.properties(width="container", height=HEIGHT)).to_dict(validate=False)
    for key in ("$schema", "config"):
        drawn.pop(key, None)
    return Figure(name, title, caption, drawn, finite, cell)


HALF, FULL = 520, 680
"""The width of saved figures, in pixels."""

NARROW = 640
"""The width below which panels stand one below the other."""

AXIS_WIDTH = 76
"""What a vertical axis needs beside a panel, in pixels, with the space between two panels."""


def sized(figure: Figure) -> dict[str, Any]:
    """The chart of a figure with the size that it is saved in; `page.js` does the same for the width of a page."""
    if figure.cell:
        return {**figure.chart, "columns": max(1, (FULL - 60) // (figure.cell + 30))}
    if figure.panels:
        width = FULL // figure.panels - AXIS_WIDTH
        return {**figure.chart, "concat": [{**panel, "width": width} for panel in figure.chart["concat"]]}
    return {**figure.chart, "width": HALF - 80, "autosize": {"type": "pad"}}


def _finite(value: Value) -> Value:
    """A number that JSON can represent; None for others."""
    if not isinstance(value, float):
        return value
    return rounded(value) if math.isfinite(value) else None


def rounded(value: float) -> float:
    """Round to six digits, more than any figure shows."""
    return float(f"{value:.6g}")
