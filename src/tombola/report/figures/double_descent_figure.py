"""The figure of sparse double descent: errors and the distance travelled against the weights left."""

from __future__ import annotations

from typing import Any

import altair as alt

from tombola.report.figures.axes import weights_left_axis
from tombola.report.figures.chart import DATA, tooltip
from tombola.report.figures.figure import HEIGHT, Figure, FigureRow, MissingFigure, figure
from tombola.report.figures.level_chart import HEADING
from tombola.report.figures.style import DENSE, WORDS, style_of
from tombola.report.formatting import bands_text
from tombola.stats.double_descent_summary import DoubleDescentSummary
from tombola.stats.summary import MeasureSummary, mean_interval

CURVES = {
    "test, end of training": ("test_error", "#1b7fc2", "circle"),
    "test, early stop": ("test_error_at_stop", "#009e73", "triangle-up"),
    "training, end of training": ("train_error", "#d55e00", "diamond"),
}
"""The errors: the field of `DoubleDescentLevel`, colour and shape."""

DISTANCE = "distance"


def values_of(values: list[float], confidence: float) -> MeasureSummary:
    """These values over replicates, with their mean and its interval."""
    return MeasureSummary(values=values, interval=mean_interval(values, confidence) if values else None)


def double_descent_figure(found: DoubleDescentSummary, confidence: float) -> Figure | MissingFigure:
    """Test and training errors, and beside them the distance travelled, if it is known."""
    rows = curve_rows(found, confidence)
    caption = [
        "A: errors of tickets at the end of training and at early stop. Training error counts wrong labels in.",
        *(["B: the L2 norm of the change of all weights left in training."] if found.distance else []),
        *(["The broken line is at the peak of test error at the end of training."] if found.end.bump else []),
        f"Bands: {bands_text(found.replicates, confidence)}.",
    ]
    panels = [_panel(rows, found, list(CURVES), "error (%)", ".2f", "A. Errors")]
    if found.distance:
        panels.append(_panel(rows, found, [DISTANCE], "distance (L2 norm)", ".4~r", "B. Distance travelled"))
    chart: Any = alt.concat(*(panel.properties(height=HEIGHT) for panel in panels), columns=2, spacing=28)
    return figure("double-descent", "Sparse double descent", " ".join(caption), chart, rows)


def curve_rows(found: DoubleDescentSummary, confidence: float) -> list[FigureRow]:
    """One row for each curve and level: errors in percent, and distances. `peak` is empty except at the peak of a
    significant bump."""
    rows: list[FigureRow] = []
    for curve, (key, factor) in _FIELDS.items():
        for level in found.levels:
            values: list[float] = getattr(level, key)
            shown = values_of(values, confidence).spread
            if shown is None:
                continue
            peak = found.end.bump and level.level == found.end.peak
            rows.append(
                {
                    "curve": curve,
                    "level": level.level,
                    "weights_left": 100 * level.weights_left,
                    "mean": factor * shown.mean,
                    "low": None if shown.low is None else max(factor * shown.low, 0.0),
                    "high": None if shown.high is None else factor * shown.high,
                    "replicates": len(values),
                    "peak": "yes" if peak else None,
                }
            )
    return rows


_FIELDS = {**{curve: (field, 100.0) for curve, (field, _, _) in CURVES.items()}, DISTANCE: (DISTANCE, 1.0)}


def _panel(
    rows: list[FigureRow], found: DoubleDescentSummary, curves: list[str], axis: str, form: str, heading: str
) -> Any:
    """The curves of one panel. Only curves of several have colours of a scale and a legend."""
    grey = style_of(DENSE).colour
    here = alt.FieldOneOfPredicate(field="curve", oneOf=curves)
    base = alt.Chart(DATA).transform_filter(here).encode(x=weights_left_axis(row["weights_left"] for row in rows))
    colour: Any = alt.ColorValue(grey)
    shape: Any = alt.ShapeValue("square")
    if len(curves) > 1:
        legend = alt.Legend(title=None, columns=2, offset=HEADING)
        colours, shapes = [CURVES[curve][1] for curve in curves], [CURVES[curve][2] for curve in curves]
        colour = alt.Color("curve:N", scale=alt.Scale(domain=curves, range=colours), legend=legend)
        shape = alt.Shape("curve:N", scale=alt.Scale(domain=curves, range=shapes), legend=legend)
    y = alt.Y("mean:Q", title=axis, scale=alt.Scale(zero=len(curves) > 1))
    low = alt.Y("low:Q", title=axis)
    shown = tooltip(curve="text", level="", weights_left=".3~r", mean=form, low=form, high=form)
    at_peak = base.transform_filter("datum.peak == 'yes'").mark_rule(strokeDash=[5, 4], color=grey)
    first = f"datum.curve == '{curves[0]}' && datum.level == {found.levels[0].level}"
    text = alt.Chart(DATA).transform_filter(first).mark_text(style=WORDS, align="left", fontSize=12.5, fontWeight=600)
    return alt.layer(
        base.mark_area(opacity=0.16).encode(y=low, y2="high:Q", color=colour),
        *([at_peak] if found.end.bump else []),
        base.mark_line().encode(y=y, color=colour),
        base.mark_point().encode(y=y, color=colour, shape=shape, tooltip=shown),
        text.encode(x=alt.value(0), y=alt.value(-16), text=alt.value(heading)),
    )
