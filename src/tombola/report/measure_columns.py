"""The measures that tables show of each branch: the judged metric, further ones, and early stop."""

from __future__ import annotations

from dataclasses import dataclass

from tombola.report.formatting import NONE, mean
from tombola.report.units import plain_form, units_of
from tombola.stats.summary import BranchSummary, Summary

MAX_OTHERS = 3
"""The largest number of metrics that are shown besides the judged one."""


@dataclass(frozen=True)
class MeasureColumn:
    """One column of a table."""

    head: str
    key: str
    """The name of the measure; see `BranchSummary`."""
    form: str
    factor: float = 1
    interval: bool = False
    """Whether its confidence interval is shown."""

    def cell(self, branch: BranchSummary, missing: str, intervals: bool = True) -> str:
        """The mean over replicates."""
        half = " ±" if self.interval and intervals else ""
        return mean(branch[self.key], self.form, self.factor, half, missing if branch.diverged else NONE)


def measure_columns(summary: Summary) -> list[MeasureColumn]:
    """The judged metric first; early stop last, if it was asked for."""
    units, metric = units_of(summary), summary.metric
    columns = [MeasureColumn(units.short, metric.at_stop, units.form, units.factor, True)]
    if summary.has_gap:
        columns.append(MeasureColumn("train", "train_accuracy_at_stop", ".1f", 100))
        columns.append(MeasureColumn("gap", "gap_at_stop", ".1f", 100))
    else:
        columns += _others(summary)
    return [*columns, *([MeasureColumn("stop", "stop_iteration", ",.0f", 1, True)] if summary.timed else [])]


def _others(summary: Summary) -> list[MeasureColumn]:
    """Metrics of the same examples that are not judged, as they are."""
    metric, dense = summary.metric, summary.dense
    prefix, suffix = f"{metric.split}_", "_at_stop"
    names = [key for key in (dense.measures if dense else ()) if key.startswith(prefix) and key.endswith(suffix)]
    return [
        MeasureColumn(name[: -len(suffix)].replace("_", " ", 1), name, plain_form(dense[name]) if dense else "")
        for name in names
        if name != metric.at_stop
    ][:MAX_OTHERS]
