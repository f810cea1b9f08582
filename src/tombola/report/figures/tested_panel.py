"""The panel beside a measure: the paired differences that the verdict tested, with their one-sided bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from tombola.report.figures.axes import vertical_scale, view, weights_left_axis
from tombola.report.figures.chart import DATA, tooltip
from tombola.report.figures.figure import FigureRow, Value
from tombola.report.figures.level_chart import HEADING, margin_band, marks, panel_heading, series_names, series_scale
from tombola.report.figures.style import DENSE, style_of
from tombola.stats.summary import MarginTest

COLUMNS = ("difference", "difference_low", "difference_high", "margin")
"""The columns of a figure's rows that this panel draws; empty in rows that are not of tickets."""


def tested_columns(test: MarginTest | None, factor: float) -> dict[str, Value]:
    """What was tested, multiplied by `factor`."""
    if test is None:
        return dict.fromkeys(COLUMNS)
    values = (test.mean, test.low, test.high, test.limit)
    return dict(zip(COLUMNS, (None if v is None else factor * v for v in values), strict=True))


def tested_panel(rows: Sequence[FigureRow], title: str, form: str, heading: str) -> Any:
    """The differences of tickets against the weights left, with their bounds and the line of the margin."""
    tested = [row for row in rows if row["difference"] is not None]
    limit, names = float(tested[0]["margin"] or 0), series_names(rows)
    ticket, dense = style_of("ticket").colour, style_of(DENSE).colour
    x = weights_left_axis(row["weights_left"] for row in rows)
    scale = vertical_scale(view([_ZERO, *map(_as_mean, tested)], abs(limit), limit, ["ticket"]))
    axis = alt.Axis(grid=True)
    low, mean, high = (
        alt.Y(f"difference{end}:Q", title=title, scale=scale, axis=axis) for end in ("_low", "", "_high")
    )
    zero, worst = (alt.YDatum(value, title=title, scale=scale, axis=axis) for value in (0, limit))
    base = alt.Chart(DATA).transform_filter("isValid(datum.difference)").encode(x=x)
    once = alt.Chart(DATA).transform_filter(f"datum.branch == '{DENSE}'")  # a row
    bounded = base.transform_filter("isValid(datum.difference_low) && isValid(datum.difference_high)")
    tick = bounded.mark_tick(orient="horizontal", color=ticket, thickness=1.8, size=11, clip=True)
    shown = tooltip(
        level="",
        weights_left=".3~r",
        verdict="text",
        difference=form,
        difference_low=form,
        difference_high=form,
        margin=form,
    )
    legend = alt.Legend(title=None, values=names, offset=HEADING)
    points = base.encode(y=mean, color=alt.Color("series:N", scale=series_scale(names), legend=legend), tooltip=shown)
    return alt.layer(
        margin_band(zero, limit),
        once.mark_rule(color=dense, strokeWidth=1.8).encode(y=zero),
        once.mark_rule(color=dense, strokeWidth=1.6, strokeDash=[5, 4]).encode(y=worst),
        bounded.mark_rule(color=ticket, strokeWidth=1.6, clip=True).encode(y=low, y2="difference_high:Q"),
        tick.encode(y=low),
        tick.encode(y=high),
        *marks(points, names, legend),
        *panel_heading(heading),
    )


_ZERO: FigureRow = {"branch": DENSE, "level": 0, "mean": 0.0, "low": None, "high": None}


def _as_mean(row: FigureRow) -> FigureRow:
    return {**row, "mean": row["difference"], "low": row["difference_low"], "high": row["difference_high"]}
