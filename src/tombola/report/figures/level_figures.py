"""Figures of a measure, or of the cost of a run, against the weights left."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import altair as alt

from tombola.experiments.margin import Margin
from tombola.report.figures.axes import joined_views, logarithmic_view, view
from tombola.report.figures.figure import HEIGHT, Figure, FigureRow, MissingFigure, figure
from tombola.report.figures.level_chart import RULES, LevelAxis, bands_that_matter, level_chart
from tombola.report.figures.style import DENSE, TUNED, VERDICTS, ordered
from tombola.report.figures.tested_panel import COLUMNS, tested_columns, tested_panel
from tombola.report.formatting import bands_text
from tombola.report.report_data import ReportData
from tombola.report.units import margin_amount, units_of
from tombola.stats.summary import BranchSummary, LevelSummary, MarginTest, Summary
from tombola.stats.ticket_barriers import verdict_state


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
    """Whether its axis is logarithmic if its means differ widely."""
    tested: str = ""
    """The field of `VerdictSummary` with its test; empty if the verdict does not depend on it."""


STOP = Measure(
    "stop",
    "stop_iteration",
    "Early-stopping iteration",
    "early-stopping iteration",
    1,
    ",.0f",
    0,
    math.inf,
    may_be_log=True,
    tested="stop_test",
)
GAP = Measure("gap", "gap_at_stop", "Generalisation gap at early stop", "train − test accuracy (points)", least=-100)
TRAIN = Measure(
    "train-accuracy",
    "train_accuracy_at_stop",
    "Training accuracy at early stop",
    "training accuracy at early stop (%)",
)
COST_AXIS = LevelAxis("seconds per run", ".3~r", zero=True)


def judged_measure(summary: Summary) -> Measure:
    """The judged metric."""
    units, metric = units_of(summary), summary.metric
    title = f"{units.name[0].upper()}{units.name[1:]}{units.when}"
    name = "accuracy" if metric.name == "accuracy" else "metric"
    least, most = (0.0, 100.0) if metric.fraction else (-math.inf, math.inf)
    return Measure(
        name, metric.at_stop, title, units.label, units.factor, units.form, least, most, tested="metric_test"
    )


def measure_rows(summary: Summary, measure: Measure) -> list[FigureRow]:
    """One row for each branch and level, and one for the dense network, also for a tuned one. Tickets come last, so
    that they are drawn on top; that of level 0 is the dense network again, where their line begins."""
    levels, baseline = summary.levels, summary.baseline
    dense = {} if summary.dense is None else {DENSE: summary.dense}
    if baseline and baseline.best:
        dense[TUNED] = baseline.trainings[baseline.best].figures
    rows: list[FigureRow] = []
    for name, figures in dense.items():
        rows += _row(name, levels[0], figures, measure)
    for name in reversed(ordered(name for level in levels for name in level.branches)):
        for level in levels:
            if name in level.branches:
                rows += _row(name, level, level.branches[name], measure)
    return rows


def _row(label: str, level: LevelSummary, figures: BranchSummary, measure: Measure) -> list[FigureRow]:
    """One row; none if all runs diverged."""
    found = figures[measure.key]
    if found.spread is None:
        return []
    bounds: FigureRow = {
        name: None if value is None else min(max(measure.factor * value, measure.least), measure.most)
        for name, value in asdict(found.spread).items()
    }
    place: FigureRow = {"branch": label, "level": level.level, "weights_left": 100 * level.weights_left}
    judged = label == "ticket" and level.level > 0
    row = place | bounds | {"replicates": len(found.values), "verdict": verdict_state(level) if judged else None}
    if measure.tested:
        test: MarginTest | None = getattr(level.verdict, measure.tested) if judged else None
        row |= tested_columns(test, _tested_factor(measure, test))
    return [row]


def _tested_factor(measure: Measure, test: MarginTest | None) -> float:
    return 100.0 if test is not None and test.relative else measure.factor


Judged = tuple[Summary, Sequence[FigureRow]]
"""An experiment, and its rows of a measure."""


def level_axis(experiments: Sequence[Judged], measure: Measure, banded: Collection[str]) -> LevelAxis:
    """The vertical axis of a measure of one or more experiments: what the axis of each of them would show."""
    means = [float(row["mean"] or 0) for _, rows in experiments for row in rows if row["branch"] in (*RULES, *banded)]
    log = logarithmic_view(means) if measure.may_be_log else None
    margins = [_margin(summary, measure) for summary, _ in experiments]
    shown = log or joined_views(
        view(rows, *margin, banded) for (_, rows), margin in zip(experiments, margins, strict=True)
    )
    worst = margins[0][1] if len(experiments) == 1 else None
    judged = worst is not None and measure.tested != STOP.tested
    return LevelAxis(measure.axis, measure.form, False, shown, log is not None, worst, label_winner=judged)


def _margin(summary: Summary, measure: Measure) -> tuple[float, float | None]:
    """How wide the margin is, infinite if everything is to be in view, and where it ends."""
    dense = None if summary.dense is None else summary.dense[measure.key].interval
    if dense is None:
        return math.inf, None
    if measure.tested == STOP.tested:
        return math.inf, dense.mean * (1 + max(level.verdict.stop_margin for level in summary.levels))
    given = summary.criteria.margin
    margin = measure.factor * given.value * (abs(dense.mean) if given.relative else 1)
    return margin, measure.factor * dense.mean - summary.metric.sign * margin if measure.tested else None


def level_figure(summary: Summary, measure: Measure, caption: str) -> Figure | MissingFigure:
    """A measure of tickets, controls and the dense network, with bands for its spread. Beside it stands what was
    tested, if the verdict depends on it."""
    rows = measure_rows(summary, measure)
    banded = bands_that_matter([summary.criteria.control])
    axis = level_axis([(summary, rows)], measure, banded)
    sentences = [caption, *_explained(summary, rows, banded)]
    if not any(row.get("difference") is not None for row in rows):
        kept: list[FigureRow] = [{k: v for k, v in row.items() if k not in COLUMNS} for row in rows]
        return figure(measure.name, measure.title, " ".join(sentences), level_chart(kept, axis, banded), kept)
    means = level_chart(rows, axis, banded, heading="A. Means over replicates")
    panels = [panel.properties(height=HEIGHT) for panel in (means, _tested(summary, measure, rows))]
    sentences.append(_test_explained(summary, measure, _limit(rows)))
    return figure(measure.name, measure.title, " ".join(sentences), alt.concat(*panels, columns=2, spacing=28), rows)


def _tested(summary: Summary, measure: Measure, rows: Sequence[FigureRow]) -> Any:
    """The panel of the paired differences."""
    stop, fraction = measure.tested == STOP.tested, summary.metric.fraction
    relative = stop or summary.criteria.margin.relative
    unit = " (% of dense)" if relative else " (points)" if fraction else ""
    limit = _limit(rows)
    amount = margin_amount(Margin(abs(limit) / 100 if relative or fraction else abs(limit), relative), fraction)
    what = "early stop" if stop else summary.metric.name
    heading = f"B. Paired differences (margin: {amount})"
    return tested_panel(rows, f"{what}, ticket − dense{unit}", ".1f" if stop else measure.form, heading)


def _limit(rows: Sequence[FigureRow]) -> float:
    """The difference that the margin allows."""
    return next(float(row["margin"] or 0) for row in rows if row["margin"] is not None)


def _test_explained(summary: Summary, measure: Measure, limit: float) -> str:
    """Sentences on the panel of the paired differences."""
    stop, name = measure.tested == STOP.tested, summary.metric.name
    side, where = ("lower", "above") if summary.metric.maximize and not stop else ("upper", "below")
    line = "the broken line, the margin" if limit else "zero, because the margin is zero"
    enough = "fast" if stop else "accurate" if name == "accuracy" else "good"
    return (
        f"B: what was tested, the differences ticket minus dense, paired over replicates, with their one-sided "
        f"bounds. A ticket is {enough} enough if its {side} bound is {where} {line}."
    )


def _explained(summary: Summary, rows: Sequence[FigureRow], banded: Sequence[str]) -> list[str]:
    """Sentences on points, lines and bands."""
    states = {row["verdict"] for row in rows if row.get("verdict")}
    points = {
        "winning": "filled circles win",
        "cannot tell": "hollow ones cannot be decided",
        "not winning": "crosses do not win",
        "too many weights": "small dots have too many weights to be judged",
    }
    named = "; ".join(points[state] for state in VERDICTS if state in states)
    found = [f"Of tickets, {named}."] if named else []
    if summary.replicates > 1:
        found.append(f"Bands: {bands_text(summary.replicates, summary.criteria.confidence)}.")
    elif summary.replicates == 1:
        found.append("One replicate: there is no confidence interval.")
    if any(row["branch"] not in ("ticket", *banded, *RULES) for row in rows):
        found.append("Other controls have no bands and may leave the figure; the CSV file has all values.")
    return found


def cost_rows(data: ReportData) -> list[FigureRow]:
    """Mean seconds of a run, by branch and level; tickets come last, so that they are drawn on top."""
    left = data.percent_left
    states = {level.level: verdict_state(level) for level in data.summary.levels if level.level > 0}
    return [
        {
            "branch": cost.branch,
            "level": cost.level,
            "weights_left": left[cost.level],
            "mean": cost.seconds / cost.runs,
            "low": None,
            "high": None,
            "replicates": cost.runs,
            "verdict": states.get(cost.level) if cost.branch == "ticket" else None,
        }
        for cost in sorted(data.results.costs, key=lambda cost: (cost.branch == "ticket", cost.branch, cost.level))
        if cost.level in left and cost.runs
    ]


def cost_figure(data: ReportData) -> Figure | MissingFigure:
    """Seconds of a run, by branch and level."""
    rows = cost_rows(data)
    caption = "The mean time of one training, whenever and on whichever engine it was trained."
    return figure("cost", "Cost of a run", caption, level_chart(rows, COST_AXIS, ()), rows)
