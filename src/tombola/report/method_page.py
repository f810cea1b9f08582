"""The page of a comparison of methods: accuracy against training cost, and the table."""

from __future__ import annotations

from typing import Any

import altair as alt

from tombola.report.document import Document, Section, Table
from tombola.report.figures.chart import DATA, tooltip
from tombola.report.figures.figure import Figure, FigureRow, MissingFigure, figure
from tombola.report.figures.style import DENSE, OTHER_COLOURS, BranchStyle, style_of
from tombola.report.formatting import percent
from tombola.report.method_table import TEXT_COLUMNS, cells, head, method_units, notes
from tombola.report.provenance_section import documentation
from tombola.stats.method_comparison import MethodComparison
from tombola.utils.text import plural

KINDS = {
    "dense": style_of(DENSE),
    "ticket": style_of("ticket"),
    "control": style_of("reinit"),
    "method": BranchStyle(OTHER_COLOURS[2], "diamond"),
}
"""The styles of the kinds of rows."""


def method_page(comparison: MethodComparison) -> Document:
    """The page of a comparison."""
    ticket = next(row for row in comparison.rows if row.kind == "ticket")
    about = (
        f"level {comparison.level}, {percent(ticket.weights_left)} of the weights; "
        f"{plural(comparison.replicates, 'replicate')}"
    )
    names = head(comparison)
    rows = [cells(comparison, row) for row in comparison.rows]
    text = frozenset(index for index, name in enumerate(names) if name in TEXT_COLUMNS)
    return Document(
        title=f"{comparison.recipe}: what to put beside a ticket",
        about=about,
        conclusions=[],
        first=Section("first", "Accuracy and training cost", parts=[_figure(comparison)]),
        sections=[
            Section(
                "methods",
                "The methods",
                notes(comparison),
                [Table("methods-table", "All rows have the same number of weights, except the dense network",
                       names, rows, text)],
            )
        ],
        links=documentation(),
    )  # fmt: skip


def _figure(comparison: MethodComparison) -> Figure | MissingFigure:
    units = method_units(comparison)
    rows: list[FigureRow] = []
    for row in comparison.rows:
        if (spread := row.at_stop.spread) is None:
            continue
        shown = {"mean": spread.mean, "low": spread.low, "high": spread.high}
        scaled = {name: None if value is None else units.factor * value for name, value in shown.items()}
        rows.append({"method": cells(comparison, row)[0], "kind": row.kind, "cost": row.cost, **scaled})
    caption = (
        f"{units.label} of each row, with its confidence interval, or the lowest and the highest of few values, "
        "against the multiply-adds of search and training. Up and to the left is better."
    )
    return figure("cost-accuracy", "Accuracy against training cost", caption, _chart(units.label), rows)


def _chart(label: str) -> Any:
    colours = alt.Scale(domain=[*KINDS], range=[style.colour for style in KINDS.values()])
    shapes = alt.Scale(domain=[*KINDS], range=[style.shape for style in KINDS.values()])
    base = alt.Chart(DATA).encode(
        x=alt.X(
            "cost:Q",
            title="training cost (dense trainings)",
            scale=alt.Scale(type="log"),
            axis=alt.Axis(format="~g", labelOverlap=True),
        ),
        color=alt.Color("kind:N", title=None, scale=colours),
    )
    values = alt.Y("mean:Q", title=label, scale=alt.Scale(zero=False))
    return alt.layer(
        base.mark_rule().encode(y=alt.Y("low:Q", title=label), y2="high:Q"),
        base.mark_point(filled=True, size=60).encode(
            y=values,
            shape=alt.Shape("kind:N", title=None, scale=shapes),
            tooltip=tooltip(method="text", kind="text", cost=".3g", mean=".2f", low=".2f", high=".2f"),
        ),
        base.mark_text(align="left", dx=7, fontSize=10).encode(y=values, text="method:N"),
    )
