"""Training curves, level by level."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from tombola.experiments.metric import Metric
from tombola.report.figures.chart import DATA, tooltip
from tombola.report.figures.figure import HOVER, Figure, FigureRow, MissingFigure, figure
from tombola.report.figures.level_figures import logarithmic, spaced_ticks
from tombola.report.figures.style import BRANCHES, DENSE, DENSE_TO_SPARSE
from tombola.report.report_data import ReportData

MAX_POINTS = 120
"""The largest number of points of one curve."""

MAX_CURVES = 8
"""The largest number of curves. The dense network and the sparsest level are always among them."""

MEANS = f"Means over replicates, of at most {MAX_CURVES} levels"


def training_curves(data: ReportData) -> list[Figure | MissingFigure]:
    """The judged metric on the validation examples, that by which trainings are chosen if it is another, and the
    loss, against iterations."""
    if not data.summary.timed:
        return []
    judged, chosen_by = data.summary.metric, data.results.config.chosen_by(row.measures for row in data.results.rows)
    metrics, columns = {metric.name: metric for metric in (judged, chosen_by)}, _columns(data)
    measured = [metric for metric in metrics.values() if f"validation_{metric.name}" in columns] or [judged]
    names = ["validation-curves", *(f"validation-{metric.name}" for metric in measured[1:])]
    curves = [validation_curves(data, *each) for each in zip(measured, names, strict=True)]
    return [*curves, *([loss_curves(data)] if data.summary.has_gap else [])]


def _columns(data: ReportData) -> set[str]:
    """The curves that have values."""
    return {name for row in data.curves for name, value in row.items() if value is not None}


def validation_curves(data: ReportData, metric: Metric, name: str = "validation-curves") -> Figure | MissingFigure:
    """The metric on the validation examples against iterations."""
    factor, unit = (100, " (%)") if metric.fraction else (1, "")
    rows = curve_rows(data, f"validation_{metric.name}", factor)
    # The first iterations start at chance: with them in view, the rest would be one line at the edge.
    seen = [float(row["mean"] or 0) for row in rows]
    low = float(np.quantile(seen, 0.08 if metric.maximize else 0.0)) if seen else 0.0
    high = float(np.quantile(seen, 1.0 if metric.maximize else 0.92)) if seen else 1.0
    edge = "lower" if metric.maximize else "upper"
    return figure(
        name,
        f"Validation {metric.name} during training",
        f"{MEANS}; the thick grey curve is the dense network. Values beyond the {edge} edge are not shown.",
        _chart(
            rows,
            f"validation {metric.name}{unit}",
            alt.Scale(domain=[low, high], nice=True, zero=False),
            alt.Axis(),
            ".2f" if metric.fraction else ".4~g",
        ),
        rows,
    )


def loss_curves(data: ReportData) -> Figure | MissingFigure:
    """Training loss against iterations."""
    rows = [row for row in curve_rows(data, "train_loss", 1) if float(row["mean"] or 0) > 0]
    return figure(
        "training-loss",
        "Training loss",
        f"{MEANS}, of the mean loss since the previous evaluation; the vertical axis is logarithmic.",
        _chart(rows, "training loss", *logarithmic(row["mean"] for row in rows), ".3~g"),
        rows,
    )


def curve_rows(data: ReportData, column: str, factor: float) -> list[FigureRow]:
    """The mean of a column over the replicates' tickets, by level and iteration."""
    left = data.percent_left
    shown = evenly_spaced(list(left), MAX_CURVES)
    values: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in data.curves:
        if row["branch"] == "ticket" and row["level"] in shown and row.get(column) is not None:
            values[row["level"]][row["iteration"]].append(row[column])
    return [
        {
            "level": level,
            "weights_left": left[level],
            "iteration": iteration,
            "mean": factor * float(np.mean(by_iteration[iteration])),
        }
        for level, by_iteration in sorted(values.items())
        for iteration in evenly_spaced(sorted(by_iteration), MAX_POINTS)
    ]


def evenly_spaced(numbers: Sequence[int], most: int) -> list[int]:
    """At most `most` of the numbers, evenly spaced, including the first and the last."""
    chosen = np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int)
    return [numbers[i] for i in chosen]


def _legend_values(rows: Sequence[FigureRow]) -> list[float]:
    """The labels of the colour legend."""
    values = sorted({float(row["weights_left"] or 0) for row in rows if row["level"] != 0}, reverse=True)
    return spaced_ticks(values, max(1.01, (values[0] / values[-1]) ** (1 / 4))) if values else []


def _chart(rows: Sequence[FigureRow], axis: str, scale: Any, ticks: Any, form: str) -> Any:
    colour = alt.Color(
        "weights_left:Q",
        title="weights left (%)",
        scale=alt.Scale(type="log", range=list(DENSE_TO_SPARSE), reverse=True, nice=False),
        legend=alt.Legend(format=".2~r", values=_legend_values(rows)),
    )
    base = alt.Chart(DATA).encode(
        x=alt.X("iteration:Q", axis=alt.Axis(grid=False, tickCount=6)),
        y=alt.Y("mean:Q", title=axis, scale=scale, axis=ticks),
        detail="level:N",
    )
    tickets = base.transform_filter("datum.level > 0").mark_line(strokeWidth=1.6, clip=True).encode(color=colour)
    dense = base.transform_filter("datum.level == 0").mark_line(strokeWidth=3.5, color=BRANCHES[DENSE], clip=True)
    shown = tooltip(level="", weights_left=".3~r", iteration=",", mean=form)
    hover = base.mark_point(size=60, opacity=0, clip=True).encode(tooltip=shown).properties(name=HOVER)
    only_dense = all(row["level"] == 0 for row in rows)  # then there is no colour range
    return alt.layer(*([dense, hover] if only_dense else [dense, tickets, hover]))
