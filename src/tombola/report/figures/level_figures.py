"""Figures of a measure, or of the cost of a run, against the weights left."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import altair as alt

from tombola.report.figures.chart import DATA, tooltip
from tombola.report.figures.figure import Figure, FigureRow, MissingFigure, figure
from tombola.report.figures.style import DASHES, DENSE, EXPERIMENTS, SHAPES, TUNED, colours, cycle, ordered
from tombola.report.report_data import ReportData
from tombola.report.units import units_of
from tombola.stats.summary import BranchSummary, LevelSummary, Summary

MAX_BANDS = 4
"""If there are more branches, only `BANDED` have bands: many overlapping bands cannot be told apart."""

LOG_AXIS_RATIO = 5
"""The ratio of the largest to the smallest mean above which an axis is logarithmic."""

BANDED = ("ticket", DENSE, "reinit")


@dataclass(frozen=True)
class Measure:
    """A measure that is drawn against the weights left."""

    name: str
    """The name of the figure."""
    key: str
    """The name of the measure; see `BranchSummary`."""
    title: str
    axis: str
    factor: float = 100.0
    form: str = ".2f"
    """The format of its values."""
    least: float = 0.0
    most: float = 100.0
    """Bounds of the measure, to which intervals are clipped: Student's t may go far beyond with two replicates."""
    may_be_log: bool = False
    """Whether its axis is logarithmic if its means differ by more than `LOG_AXIS_RATIO` times."""


STOP = Measure(
    "stop", "stop_iteration", "Early-stopping iteration", "early-stopping iteration", 1, ",.0f", 0, math.inf, True
)
GAP = Measure("gap", "gap_at_stop", "Generalisation gap at early stop", "train − test accuracy (points)", least=-100)
TRAIN = Measure(
    "train-accuracy",
    "train_accuracy_at_stop",
    "Training accuracy at early stop",
    "training accuracy at early stop (%)",
)
SECONDS_PER_RUN = "seconds per run"


def judged_measure(summary: Summary) -> Measure:
    """The judged metric."""
    units, metric = units_of(summary), summary.metric
    title = f"{units.name[0].upper()}{units.name[1:]}{units.when}"
    name = "accuracy" if metric.name == "accuracy" else "metric"
    least, most = (0.0, 100.0) if metric.fraction else (-math.inf, math.inf)
    return Measure(name, metric.at_stop, title, units.label, units.factor, units.form, least, most)


def measure_rows(summary: Summary, measure: Measure) -> list[FigureRow]:
    """One row for each branch and level, and two for the dense network, also for a tuned one, one at either end.
    Tickets come last, so that they are drawn on top."""
    levels, baseline = summary.levels, summary.baseline
    dense = {} if summary.dense is None else {DENSE: summary.dense}
    if baseline and baseline.best:
        dense[TUNED] = baseline.trainings[baseline.best].figures
    rows: list[FigureRow] = []
    for name, figures in dense.items():
        for end in (levels[0], levels[-1]) if len(levels) > 1 else levels:
            rows += _row(name, levels[0], figures, end.weights_left, measure)
    for name in reversed(ordered(name for level in levels for name in level.branches)):
        for level in levels:
            if name in level.branches:
                rows += _row(name, level, level.branches[name], level.weights_left, measure)
    return rows


def _row(
    label: str, level: LevelSummary, figures: BranchSummary, weights_left: float, measure: Measure
) -> list[FigureRow]:
    """One row; none if all runs diverged."""
    found = figures[measure.key]
    if found.spread is None:
        return []
    bounds: FigureRow = {
        name: None if value is None else min(max(measure.factor * value, measure.least), measure.most)
        for name, value in asdict(found.spread).items()
    }
    place: FigureRow = {"branch": label, "level": level.level, "weights_left": 100 * weights_left}
    return [place | bounds | {"replicates": len(found.values)}]


def level_figure(summary: Summary, measure: Measure, caption: str = "") -> Figure | MissingFigure:
    """A measure of tickets, controls and the dense network, with bands for its spread."""
    rows = measure_rows(summary, measure)
    chart = level_chart(rows, measure.axis, measure.form, may_be_log=measure.may_be_log)
    if len({row["branch"] for row in rows}) > MAX_BANDS:
        caption = f"{caption} Other controls have no bands and may leave the figure; the CSV file has all values."
    return figure(measure.name, measure.title, caption.strip(), chart, rows)


def cost_rows(data: ReportData) -> list[FigureRow]:
    """Mean seconds of a run, by branch and level; tickets come last, so that they are drawn on top."""
    left = data.percent_left
    return [
        {
            "branch": cost.branch,
            "level": cost.level,
            "weights_left": left[cost.level],
            "mean": cost.seconds / cost.runs,
            "low": None,
            "high": None,
            "replicates": cost.runs,
        }
        for cost in sorted(data.results.costs, key=lambda cost: (cost.branch == "ticket", cost.branch, cost.level))
        if cost.level in left and cost.runs
    ]


def cost_figure(data: ReportData) -> Figure | MissingFigure:
    """Seconds of a run, by branch and level."""
    rows = cost_rows(data)
    caption = "The mean time of one training, whenever and on whichever engine it was trained."
    return figure("cost", "Cost of a run", caption, level_chart(rows, SECONDS_PER_RUN, ".3~r", zero=True), rows)


def level_chart(
    rows: Sequence[FigureRow],
    axis: str,
    form: str,
    zero: bool = False,
    may_be_log: bool = False,
    experiments: Sequence[str] = (),
) -> Any:
    """Lines and bands against the weights left. Branches have colours; if there are several `experiments`, these have
    colours and branches have dashes. A click in the legend highlights one."""
    branches = ordered(str(row["branch"]) for row in rows)
    banded = [branch for branch in branches if experiments or branch in BANDED or len(branches) <= MAX_BANDS]
    group = "experiment" if experiments else "branch"
    palette = cycle(EXPERIMENTS, len(experiments)) if experiments else colours(branches)
    chosen = alt.selection_point(name="chosen", fields=[group], bind="legend")
    opacity = alt.condition(chosen, alt.value(1.0), alt.value(0.12))
    legend = alt.Legend(title=None)
    base = alt.Chart(DATA).encode(
        x=weights_left_axis(row["weights_left"] for row in rows),
        color=alt.Color(f"{group}:N", scale=alt.Scale(domain=experiments or branches, range=palette), legend=legend),
        detail="branch:N",
    )
    scale = vertical_scale([row for row in rows if row["branch"] in banded], zero, may_be_log)
    y = alt.Y("mean:Q", title=axis, scale=scale)
    line = base.mark_line(clip=True).encode(y=y, opacity=opacity)
    if experiments:
        dashes = alt.Scale(domain=branches, range=cycle(DASHES, len(branches)))
        line = line.encode(strokeDash=alt.StrokeDash("branch:N", scale=dashes, legend=legend))
    shown = tooltip(branch="text", level="", weights_left=".3~r", mean=form, low=form, high=form, replicates="")
    shapes = alt.Scale(domain=branches, range=cycle(SHAPES, len(branches)))
    point = base.transform_filter(f"indexof({[DENSE, TUNED]}, datum.branch) < 0").mark_point(clip=True)
    point = point.encode(
        y=y,
        shape=alt.Shape("branch:N", scale=shapes, legend=legend),
        opacity=opacity,
        tooltip=[*(tooltip(experiment="text") if experiments else []), *shown],
    )
    layers = [line.properties(name="lines").add_params(chosen), point]
    if any(row["low"] is not None for row in rows):
        faded = alt.condition(chosen, alt.value(0.16), alt.value(0.02))
        band = base.mark_area(clip=True).encode(y=alt.Y("low:Q", title=axis), y2="high:Q", opacity=faded)
        kept = {"and": [alt.FieldOneOfPredicate(field="branch", oneOf=banded), "isValid(datum.low)"]}
        layers.insert(0, band.transform_filter(kept))
    return alt.layer(*layers)


def vertical_scale(rows: Sequence[FigureRow], zero: bool = False, may_be_log: bool = False) -> Any:
    """The vertical scale. All means are in view; bands are clipped where they would more than triple the range."""
    means = [float(row["mean"] or 0) for row in rows]
    if may_be_log and means and min(means) > 0 and max(means) > LOG_AXIS_RATIO * min(means):
        return alt.Scale(type="log", domain=[min(means) / 2, max(means) * 1.5], nice=False)
    room = max(means, default=0.0) - min(means, default=0.0)
    if zero or not room:
        return alt.Scale(zero=zero)
    ends = [float(end) for row in rows for end in (row["low"], row["high"]) if end is not None]
    low = max(min([*means, *ends]), min(means) - room)
    return alt.Scale(domain=[low, min(max([*means, *ends]), max(means) + room)], nice=True, zero=False)


def weights_left_axis(values: Iterable[Any]) -> Any:
    """The horizontal axis: dense on the left, sparser to the right, on a logarithmic scale."""
    ticks = sorted({float(value) for value in values}, reverse=True)
    low, high = (ticks[-1], ticks[0]) if ticks else (50.0, 100.0)
    if low == high:
        low, high = low / 1.5, high * 1.5
    return alt.X(
        "weights_left:Q",
        title="weights left (%)",
        scale=alt.Scale(type="log", domain=[low, high], reverse=True, nice=False, padding=10),
        axis=alt.Axis(
            values=spaced_ticks(ticks, (high / low) ** (1 / 9)), format=".2~r", grid=False, labelOverlap="parity"
        ),
    )


def spaced_ticks(values: Sequence[float], factor: float) -> list[float]:
    """Of decreasing values those that differ by at least `factor`, including the first and the last."""
    kept: list[float] = []
    for value in values:
        if not kept or kept[-1] >= factor * value:
            kept.append(value)
    if kept and kept[-1] != values[-1]:
        kept[max(1, len(kept) - 1) :] = [values[-1]]
    return kept


def logarithmic(values: Iterable[Any]) -> tuple[Any, Any]:
    """A logarithmic vertical scale, and its axis: ticks at powers of ten, or at 1, 2 and 5 if these are too few."""
    positive = [float(value) for value in values if value]
    low, high = (min(positive), max(positive)) if positive else (1.0, 10.0)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1,) if math.log10(high / low) > 3 else (1, 2, 5)
    ticks = [digit * 10.0**power for power in powers for digit in digits]
    scale = alt.Scale(type="log", domain=[low, high] if low < high else [low / 2, high * 2], nice=False)
    return scale, alt.Axis(values=[tick for tick in ticks if low * 0.99 <= tick <= high * 1.01], format="~r")
