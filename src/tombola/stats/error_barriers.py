"""Error barriers between trainings that share their first k iterations, over replicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tombola.stats.summary import BarrierSummary, MeasureSummary, mean_interval
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


def interpolation_paths(points: Sequence[Mapping[str, Any]], count: int) -> list[InterpolationPath]:
    """The paths that diverged or have all their `count` points, from the rows of `stability.parquet`."""
    by_path: dict[tuple[int, int, int], list[Mapping[str, Any]]] = {}
    for point in sorted(points, key=lambda point: point["share"]):
        by_path.setdefault((point["replicate"], point["k"], point["pair"]), []).append(point)
    found = []
    for place, along in sorted(by_path.items()):
        if any(point["validation_accuracy"] is None for point in along):
            found.append(InterpolationPath(*place, None))
        elif len(along) == count:
            errors = {split: [1 - point[f"{split}_accuracy"] for point in along] for split in SPLITS}
            found.append(InterpolationPath(*place, errors))
    return found


def barrier_summaries(
    paths: Sequence[InterpolationPath], tolerance: float, confidence: float
) -> list[BarrierSummary]:
    """The error barriers at each k. A replicate's barrier is the mean over its paths, a fraction of the examples; the
    replicate is stable if its barrier on the validation examples is at most `tolerance`."""
    summaries = []
    for k, same_k in _by_k(paths).items():
        barriers = {}
        for split in SPLITS:
            values = list(_by_replicate(same_k, split).values())
            interval = mean_interval(values, confidence)
            if interval.low is not None:
                interval = replace(interval, low=max(interval.low, 0.0))  # a barrier is never negative
            barriers[f"{split}_barrier"] = MeasureSummary(values=values, interval=interval)
        values = barriers["validation_barrier"].values
        stable = sum(value <= tolerance for value in values)
        summaries.append(BarrierSummary(k=k, **barriers, replicates=len(values), stable=stable))
    return summaries


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
