"""Barriers on lines between trainings, in the units of their metric."""

from __future__ import annotations

from dataclasses import dataclass

from tombola.experiments.margin import Margin
from tombola.report.formatting import mean
from tombola.report.units import margin_amount, units_of
from tombola.stats.summary import MeasureSummary, StabilitySummary, Summary


@dataclass(frozen=True)
class BarrierUnits:
    """How barriers of one metric are named and shown: those of an accuracy as barriers of the error, in points."""

    name: str
    """`error barrier`, or `loss barrier`."""
    unit: str
    """`points`, or empty."""
    tolerance: str
    """`2 points`, or `0.02`."""
    factor: float
    """What barriers are multiplied by."""
    form: str
    """The format of barriers."""
    along: str
    """What is shown along a line: `error (%)`, or `loss`."""
    along_factor: float
    """What errors (see `Metric.errors`) are multiplied by along a line."""

    @property
    def title(self) -> str:
        """`Error barrier`."""
        return f"{self.name[0].upper()}{self.name[1:]}"

    @property
    def label(self) -> str:
        """For axes: `error barrier (points)`."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def in_unit(self) -> str:
        """` in points`, or empty."""
        return f" in {self.unit}" if self.unit else ""

    def shown(self, barrier: MeasureSummary, interval: str = " ± ") -> str:
        """The mean over replicates; see `tombola.report.formatting.mean`."""
        return mean(barrier, self.form, self.factor, interval)


def barrier_units(summary: Summary, stability: StabilitySummary) -> BarrierUnits:
    """The units of the stability analysis of an experiment."""
    metric, units = stability.metric, units_of(summary, stability.metric)
    tolerance = margin_amount(Margin(stability.tolerance), metric.fraction)
    if metric.fraction:
        return BarrierUnits("error barrier", "points", tolerance, 100.0, ".2f", "error (%)", 100.0)
    return BarrierUnits(f"{metric.name} barrier", "", tolerance, 1.0, units.form, metric.name, -metric.sign)
