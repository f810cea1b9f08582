"""Error barriers on lines between the final weights of two trainings, over replicates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tombola.experiments.metric import VALIDATION_ACCURACY, Metric
from tombola.stats.summary import SPLITS, BarrierSummary, LineSummary, MeasureSummary, mean_interval
from tombola.studies.request import TicketLine
from tombola.studies.stability import mean_barrier


@dataclass(frozen=True)
class InterpolationPath:
    """The straight line between the final weights of two trainings."""

    replicate: int
    k: int
    pair: int
    errors: Mapping[str, list[float] | None]
    """The errors for each split of the data, from end to end, lower is better (see `Metric.errors`); None if some are
    not finite, or a training diverged."""
    level: int = 0
    """The level of its first end."""


def interpolation_paths(
    points: Sequence[Mapping[str, Any]],
    count: int,
    line: TicketLine | None = None,
    metric: Metric = VALIDATION_ACCURACY,
) -> list[InterpolationPath]:
    """The paths between trainings of the dense network, or of tickets, from the rows of `stability.parquet`. Only
    paths that diverged or have all their `count` points are included. Their errors are those of `metric`."""
    figures = {split: f"{split}_{metric.name}" for split in SPLITS}
    measured = [split for split in SPLITS if any(point.get(figures[split]) is not None for point in points)] or SPLITS
    by_path: dict[tuple[int, int, int, int], list[Mapping[str, Any]]] = {}
    for point in sorted(points, key=lambda point: point["share"]):
        if point.get("line") == line:
            place = (point["replicate"], point["k"], point["pair"], point.get("level") or 0)
            by_path.setdefault(place, []).append(point)
    found = []
    for (replicate, k, pair, level), along in sorted(by_path.items()):
        errors = {split: metric.errors(point.get(figures[split]) for point in along) for split in measured}
        if len(along) == count or errors.get("validation") is None:
            found.append(InterpolationPath(replicate, k, pair, errors, level))
    return found


@dataclass(frozen=True)
class BarrierCriteria:
    """The criteria by which barriers are summarised."""

    tolerance: float
    """The highest barrier of a stable network, in the units of errors."""
    confidence: float
    worst: float = 1.0
    """The barrier of a path with an error that is not finite."""


def barrier_summaries(paths: Sequence[InterpolationPath], criteria: BarrierCriteria) -> list[BarrierSummary]:
    """The error barriers at each k."""
    return [BarrierSummary(k=k, **dict(line_summary(same_k, criteria))) for k, same_k in _by_k(paths).items()]


def line_summary(paths: Sequence[InterpolationPath], criteria: BarrierCriteria) -> LineSummary:
    """The error barriers on some paths. A replicate's barrier is the mean over its paths, in the units of errors;
    the replicate is stable if its barrier on the validation examples is at most the tolerance."""
    barriers = {split: [*_by_replicate(paths, split, criteria.worst).values()] for split in SPLITS}
    stable = sum(value <= criteria.tolerance for value in barriers["validation"])
    return LineSummary(
        **{f"{split}_barrier": _measure(values, criteria.confidence) for split, values in barriers.items()},
        replicates=len(barriers["validation"]),
        stable=stable,
    )


def _measure(barriers: Sequence[float], confidence: float) -> MeasureSummary:
    """The measure of the finite barriers."""
    values = [barrier for barrier in barriers if math.isfinite(barrier)]
    interval = mean_interval(values, confidence) if values else None
    if interval and interval.low is not None:
        interval = replace(interval, low=max(interval.low, 0.0))  # a barrier is never negative
    return MeasureSummary(values=values, interval=interval)


def _by_k(paths: Sequence[InterpolationPath]) -> dict[int, list[InterpolationPath]]:
    return {k: [path for path in paths if path.k == k] for k in sorted({path.k for path in paths})}


def _by_replicate(paths: Sequence[InterpolationPath], split: str, worst: float) -> dict[int, float]:
    """The mean barrier over the paths of one k, by replicate; empty if nothing was measured on this split."""
    errors: dict[int, list[list[float] | None]] = {}
    for path in paths:
        if split in path.errors:
            errors.setdefault(path.replicate, []).append(path.errors[split])
    return {replicate: mean_barrier(each, worst) for replicate, each in errors.items()}


def stable_rewind_points(paths: Sequence[InterpolationPath], criteria: BarrierCriteria) -> list[int | None]:
    """For each replicate, the smallest k at which it is stable, which is the choice of automatic rewinding. None if
    it is stable at no candidate; it is then rewound to the last candidate."""
    barriers = {k: _by_replicate(same_k, "validation", criteria.worst) for k, same_k in _by_k(paths).items()}
    tolerance = criteria.tolerance
    return [
        next((k for k, values in barriers.items() if replicate in values and values[replicate] <= tolerance), None)
        for replicate in sorted({path.replicate for path in paths})
    ]
