"""Error barriers on lines between the final weights of two trainings, over replicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tombola.stats.summary import BarrierSummary, LineSummary, MeasureSummary, mean_interval
from tombola.studies.request import TicketLine
from tombola.studies.stability import mean_barrier

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class InterpolationPath:
    """The straight line between the final weights of two trainings."""

    replicate: int
    k: int
    pair: int
    errors: Mapping[str, list[float]] | None
    """By split of the data, from end to end; None if a training diverged."""
    level: int = 0
    """Of its first end."""


def interpolation_paths(
    points: Sequence[Mapping[str, Any]], count: int, line: TicketLine | None = None
) -> list[InterpolationPath]:
    """The paths that diverged or have all their `count` points, from the rows of `stability.parquet`: those between
    trainings of the dense network, or of tickets."""
    by_path: dict[tuple[int, int, int, int], list[Mapping[str, Any]]] = {}
    for point in sorted(points, key=lambda point: point["share"]):
        if point.get("line") == line:
            place = (point["replicate"], point["k"], point["pair"], point.get("level") or 0)
            by_path.setdefault(place, []).append(point)
    found = []
    for (replicate, k, pair, level), along in sorted(by_path.items()):
        if any(point["validation_accuracy"] is None for point in along):
            found.append(InterpolationPath(replicate, k, pair, None, level))
        elif len(along) == count:
            errors = {split: [1 - point[f"{split}_accuracy"] for point in along] for split in SPLITS}
            found.append(InterpolationPath(replicate, k, pair, errors, level))
    return found


def barrier_summaries(
    paths: Sequence[InterpolationPath], tolerance: float, confidence: float
) -> list[BarrierSummary]:
    """The error barriers at each k."""
    return [
        BarrierSummary(k=k, **dict(line_summary(same_k, tolerance, confidence))) for k, same_k in _by_k(paths).items()
    ]


def line_summary(paths: Sequence[InterpolationPath], tolerance: float, confidence: float) -> LineSummary:
    """The error barriers on some paths. A replicate's barrier is the mean over its paths, a fraction of the examples;
    the replicate is stable if its barrier on the validation examples is at most `tolerance`."""
    barriers = {}
    for split in SPLITS:
        values = list(_by_replicate(paths, split).values())
        interval = mean_interval(values, confidence)
        if interval.low is not None:
            interval = replace(interval, low=max(interval.low, 0.0))  # a barrier is never negative
        barriers[f"{split}_barrier"] = MeasureSummary(values=values, interval=interval)
    values = barriers["validation_barrier"].values
    return LineSummary(**barriers, replicates=len(values), stable=sum(value <= tolerance for value in values))


def _by_k(paths: Sequence[InterpolationPath]) -> dict[int, list[InterpolationPath]]:
    return {k: [path for path in paths if path.k == k] for k in sorted({path.k for path in paths})}


def _by_replicate(paths: Sequence[InterpolationPath], split: str) -> dict[int, float]:
    """The mean barrier over the paths of one k, by replicate."""
    errors: dict[int, list[list[float] | None]] = {}
    for path in paths:
        errors.setdefault(path.replicate, []).append(None if path.errors is None else path.errors[split])
    return {replicate: mean_barrier(each) for replicate, each in errors.items()}


def stable_rewind_points(paths: Sequence[InterpolationPath], tolerance: float) -> list[int | None]:
    """For each replicate the smallest k at which it is stable: the choice of automatic rewinding. None if it is
    stable at no candidate; it is then rewound to the last one."""
    barriers = {k: _by_replicate(same_k, "validation") for k, same_k in _by_k(paths).items()}
    return [
        next((k for k, values in barriers.items() if replicate in values and values[replicate] <= tolerance), None)
        for replicate in sorted({path.replicate for path in paths})
    ]
