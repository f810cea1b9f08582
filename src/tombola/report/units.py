"""Units: how a metric is named and shown."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tombola.experiments.margin import Margin
from tombola.experiments.metric import Metric
from tombola.report.formatting import NONE, percent, points
from tombola.stats.summary import NOT_MEASURED, BranchSummary, MeasureSummary, Summary

DIGITS = 4
"""Of a metric that is no fraction."""


@dataclass(frozen=True)
class Units:
    """Of a metric. Fractions are shown in percent, and their differences in points; others as they are."""

    name: str
    """Of the metric, with the examples that it is measured on: `test accuracy`."""
    short: str
    """The head of a column: `test %`."""
    when: str
    """` at early stop`, or empty if early stop was not asked for."""
    difference: str
    """The head of a column of differences: `accuracy, points`."""
    factor: float
    """What values are multiplied by."""
    form: str
    """The format of values and differences."""

    def text(self, value: float) -> str:
        """A value: `96.42%`, `0.0312`."""
        return f"{self.factor * value:{self.form}}{'%' if self.factor != 1 else ''}"

    def mean(self, measure: MeasureSummary) -> str:
        """The mean of a measure, or `–`."""
        return NONE if measure.interval is None else self.text(measure.interval.mean)

    @property
    def label(self) -> str:
        """For axes: `test accuracy at early stop (%)`."""
        return f"{self.name}{self.when}{' (%)' if self.factor != 1 else ''}"


def units_of(summary: Summary, of: Metric | None = None) -> Units:
    """The units of a metric, by default the judged one."""
    return metric_units(of or summary.metric, summary.dense, summary.timed)


def metric_units(metric: Metric, dense: BranchSummary | None, timed: bool) -> Units:
    """The units of a metric; the dense network's figures tell how many digits there should be."""
    name = f"{metric.split} {metric.name}"
    when = " at early stop" if timed else ""
    if metric.fraction:
        return Units(name, f"{metric.split} %", when, f"{metric.name}, points", 100.0, ".2f")
    return Units(name, name, when, metric.name, 1.0, plain_form(dense[metric.at_stop] if dense else NOT_MEASURED))


def plain_form(measure: MeasureSummary) -> str:
    """The format of a measure as it is: as many decimals as `DIGITS` digits of the mean need."""
    typical = measure.interval.mean if measure.interval else 0.0
    if not (math.isfinite(typical) and typical):
        return f".{DIGITS - 1}f"
    return f",.{min(max(DIGITS - 1 - math.floor(math.log10(abs(typical))), 0), 12)}f"


def margin_amount(margin: Margin, fraction: bool) -> str:
    """`1 point`, `0.03` or, if it is relative, `1%`."""
    if margin.relative:
        return percent(margin.value)
    return points(margin.value) if fraction else f"{margin.value:g}"
