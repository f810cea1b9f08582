"""What the verdict tested against its margins, with the bounds that these tests give: for figures."""

from __future__ import annotations

from tombola.experiments.margin import Margin
from tombola.experiments.metric import Metric
from tombola.stats.paired_comparison import PairedComparison
from tombola.stats.summary import MarginTest


def metric_margin_test(comparison: PairedComparison, metric: Metric, margin: Margin) -> MarginTest:
    """The test of the judged metric. Differences have the sign of the metric, not of the gain."""
    tested, limit = comparison.worse_by(margin)
    low, high = metric.bounds(*tested.bounds(limit))
    return MarginTest(
        mean=metric.sign * tested.estimate,
        low=low,
        high=high,
        limit=metric.sign * limit,
        maximize=metric.maximize,
        relative=tested is not comparison.gain,
    )


def stop_margin_test(comparison: PairedComparison, margin: float) -> MarginTest | None:
    """The test of early stop: how much later tickets stop, as a fraction of the dense network's early stop; None if
    early stop was not asked for."""
    if comparison.stop is None:
        return None
    latest = 1 + margin
    low, high = (None if bound is None else bound - 1 for bound in comparison.stop.bounds(latest))
    return MarginTest(
        mean=comparison.stop.estimate - 1,
        low=None if low is None else max(low, -1.0),
        high=high,
        limit=latest - 1,
        maximize=False,
        relative=True,
    )
