"""The figure beside the verdict: does a level win where, and only where, it is connected?"""

from __future__ import annotations

from dataclasses import asdict

import altair as alt

from tombola.report.barrier_units import barrier_units
from tombola.report.figures.axes import weights_left_axis
from tombola.report.figures.chart import DATA, tooltip
from tombola.report.figures.figure import Figure, FigureRow, MissingFigure, figure
from tombola.report.figures.style import DENSE, LINES, VERDICTS, style_of
from tombola.report.ticket_lines import OTHER_END
from tombola.stats.summary import StabilitySummary, Summary
from tombola.stats.ticket_barriers import judged_levels

SHAPES = VERDICTS | {"dense": "square"}
"""By verdict."""


def ticket_barriers_figure(summary: Summary) -> list[Figure | MissingFigure]:
    """The error barriers of tickets against the weights left, with the verdict on each level; empty if lines between
    tickets were not asked for."""
    if summary.stability is None or not summary.stability.tickets:
        return []
    rows, units = barrier_rows(summary, summary.stability), barrier_units(summary, summary.stability)
    states = [state for state in SHAPES if any(row["verdict"] == state for row in rows)]
    colours = alt.Scale(domain=list(OTHER_END.values()), range=[*LINES])
    shapes = alt.Scale(domain=states, range=[SHAPES[state] for state in states])
    base = alt.Chart(DATA).encode(
        x=weights_left_axis(row["weights_left"] for row in rows),
        color=alt.Color("line:N", title="line to the", scale=colours, legend=alt.Legend(columns=1)),
    )
    y = alt.Y("mean:Q", title=units.label, scale=alt.Scale(zero=True))
    shown = tooltip(
        line="text", level="", weights_left=".3~r", verdict="text", mean=units.form, low=units.form, high=units.form
    )
    grey = style_of(DENSE).colour
    legend = alt.Legend(symbolFillColor=grey, symbolStrokeColor=grey, columns=2)
    verdict = alt.Shape("verdict:N", title="verdict", scale=shapes, legend=legend)
    spread = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1.5, opacity=0.5)
    tolerance = alt.Chart(DATA).mark_rule(strokeDash=[5, 4], color=grey).encode(y="tolerance:Q")
    chart = alt.layer(
        tolerance,
        base.mark_line().encode(y=y),
        spread.encode(y="low:Q", y2="high:Q"),
        base.mark_point(size=90).encode(y=y, shape=verdict, tooltip=shown),
    )
    metric = summary.stability.metric
    what = "The highest validation error on the line from a level's ticket minus the mean error of the line's ends."
    if not metric.fraction:
        what = (
            f"How much worse the worst validation {metric.name} on the line from a level's ticket is than the mean "
            f"of the line's ends."
        )
    caption = (
        f"{what} A level is connected if its barrier is not above the dashed line. Symbols are verdicts; rules are "
        f"confidence intervals of the mean or, of few replicates, the lowest to the highest value."
    )
    return [figure("ticket-barriers", f"{units.title}s between tickets", caption, chart, rows)]


def barrier_rows(summary: Summary, stability: StabilitySummary) -> list[FigureRow]:
    """One row for each level and kind of lines: barriers on validation examples, in points or units of the metric."""
    factor = barrier_units(summary, stability).factor
    rows: list[FigureRow] = []
    for line, end in OTHER_END.items():
        for judged in judged_levels(summary, line):
            found = judged.barriers.validation_barrier.spread
            if found is None:  # no line is finite
                continue
            rows.append(
                {
                    "line": end,
                    "level": judged.level.level,
                    "weights_left": 100 * judged.level.weights_left,
                    "verdict": judged.state,
                    "connected": "yes" if judged.connected else "no",
                    **{name: None if value is None else factor * value for name, value in asdict(found).items()},
                    "replicates": judged.barriers.replicates,
                    "tolerance": factor * stability.tolerance,
                }
            )
    return rows
