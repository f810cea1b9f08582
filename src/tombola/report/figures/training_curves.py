"""Training curves, level by level."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import altair as alt
import numpy as np

from tombola.experiments.metric import Metric
from tombola.report.figures.axes import logarithmic
from tombola.report.figures.chart import DATA, tooltip
from tombola.report.figures.figure import HOVER, Figure, FigureRow, MissingFigure, figure
from tombola.report.figures.style import DENSE, DENSE_TO_SPARSE, PAPER, style_of
from tombola.report.formatting import bands_text, percent
from tombola.report.report_data import ReportData
from tombola.stats.summary import MeasureSummary, Summary, mean_interval

MAX_POINTS = 120
"""The largest number of points of one curve."""

MAX_CURVES = 8
"""The largest number of curves. The dense network, the smallest winning and the sparsest level are among them."""


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
        f"{_explained(data.summary)} Values beyond the {edge} edge are not shown.",
        _chart(
            data,
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
    floor = min((float(row["mean"] or 0) for row in rows), default=1.0) / 10
    return figure(
        "training-loss",
        "Training loss",
        f"The mean loss since the previous evaluation, on a logarithmic axis. {_explained(data.summary)}",
        _chart(data, rows, "training loss", *logarithmic(row["mean"] for row in rows), ".3~g", floor),
        rows,
    )


def curve_rows(data: ReportData, column: str, factor: float) -> list[FigureRow]:
    """The mean of a column over the replicates' tickets, with its band, by level and iteration."""
    left, confidence = data.percent_left, data.summary.criteria.confidence
    shown = shown_levels(data.summary)
    values: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in data.curves:
        if row["branch"] == "ticket" and row["level"] in shown and row.get(column) is not None:
            values[row["level"]][row["iteration"]].append(row[column])
    rows: list[FigureRow] = []
    for level, by_iteration in sorted(values.items()):
        for iteration in evenly_spaced(sorted(by_iteration), MAX_POINTS):
            band = _spread(by_iteration[iteration], confidence)
            scaled = {name: None if value is None else factor * value for name, value in band.items()}
            rows.append({"level": level, "weights_left": left[level], "iteration": iteration, **scaled})
    return rows


def _spread(values: list[float], confidence: float) -> dict[str, float | None]:
    """Their mean and the bounds of a band."""
    found = MeasureSummary(values=values, interval=mean_interval(values, confidence)).spread
    return {} if found is None else asdict(found)


def shown_levels(summary: Summary) -> list[int]:
    """The levels whose curves are drawn: the smallest winning one, and others evenly spaced."""
    levels, winner = [level.level for level in summary.levels], summary.smallest_winning
    found = evenly_spaced(levels, MAX_CURVES)
    if winner is None or winner.level in found:
        return found
    return sorted({*evenly_spaced(levels, MAX_CURVES - 1), winner.level})


def evenly_spaced(numbers: Sequence[int], most: int) -> list[int]:
    """At most `most` of the numbers, evenly spaced, including the first and the last."""
    chosen = np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int)
    return [numbers[i] for i in chosen]


def _legend_values(rows: Sequence[FigureRow]) -> list[float]:
    """The labels of the colour legend: all tickets that are drawn."""
    return sorted({float(row["weights_left"] or 0) for row in rows if row["level"] != 0}, reverse=True)


def _explained(summary: Summary) -> str:
    """What the curves and bands are."""
    winner, marked = summary.smallest_winning, ""
    if winner is not None:
        marked = f", the thick coloured one the smallest winning ticket, with {percent(winner.weights_left)} left"
    means = (
        f"Means over replicates, of at most {MAX_CURVES} levels; the thick grey curve is the dense network{marked}."
    )
    if summary.replicates < 2:
        return means
    of = "these two" if winner is not None else "the dense network and the sparsest ticket"
    return f"{means} Bands, of {of}: {bands_text(summary.replicates, summary.criteria.confidence)}."


def _chart(
    data: ReportData,
    rows: Sequence[FigureRow],
    axis: str,
    scale: Any,
    ticks: Any,
    form: str,
    floor: float | None = None,
) -> Any:
    """Curves in the colours of their levels, with bands for the dense network and the winning, or sparsest, one.
    Bands end at `floor`: a logarithmic axis has no place for bounds that are not positive."""
    winner = data.summary.smallest_winning
    last = max((int(row["level"] or 0) for row in rows), default=0)
    marked = last if winner is None else winner.level
    colour = alt.Color(
        "weights_left:Q",
        title="weights left (%)",
        scale=alt.Scale(type="log", range=list(DENSE_TO_SPARSE), reverse=True, nice=False),
        legend=alt.Legend(format=".3~r", values=_legend_values(rows)),
    )
    grey = alt.value(style_of(DENSE).colour)
    base = alt.Chart(DATA).encode(
        x=alt.X("iteration:Q", axis=alt.Axis(grid=False, tickCount=6)),
        y=alt.Y("mean:Q", title=axis, scale=scale, axis=ticks),
        detail="level:N",
    )
    low = alt.Y("bottom:Q", title=axis, scale=scale, axis=ticks)
    bottom = "datum.low" if floor is None else f"max(datum.low, {floor:g})"
    dense, tickets = base.transform_filter("datum.level == 0"), base.transform_filter("datum.level > 0")
    chosen = base.transform_filter(f"datum.level == {marked}")
    bands = [
        one.transform_filter("isValid(datum.low)")
        .transform_calculate(bottom=bottom)
        .mark_area(clip=True, opacity=0.22)
        .encode(y=low, y2="high:Q", color=of)
        for one, of in ((dense, grey), (chosen, colour))
    ]
    thin, halo = (
        tickets.mark_line(strokeWidth=1.5, clip=True),
        chosen.mark_line(style=PAPER, strokeWidth=6, clip=True),
    )
    layers = [bands[0], dense.mark_line(strokeWidth=3.5, clip=True).encode(color=grey)]
    if last:  # otherwise there is no range of colours
        layers += [bands[1], thin.encode(color=colour)]
    if last and winner is not None:
        layers += [halo, chosen.mark_line(strokeWidth=3.2, clip=True).encode(color=colour)]
    shown = tooltip(level="", weights_left=".3~r", iteration=",", mean=form, low=form, high=form)
    hover = base.mark_point(size=60, opacity=0, clip=True).encode(tooltip=shown).properties(name=HOVER)
    return alt.layer(*layers, hover)
