"""Stability: the error barriers between trainings that share their first k iterations, over replicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tombola.stats.interval import mean_interval
from tombola.studies.stability import mean_barrier

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Line:
    """A straight line between the ends of two trainings."""

    replicate: int
    k: int
    pair: int
    errors: Mapping[str, list[float]] | None
    """By part of the data, from end to end; None where a training diverged."""


def lines(points: Sequence[Mapping[str, Any]], count: int) -> list[Line]:
    """The lines of which all `count` points are there, or that diverged, from the rows of `stability.parquet`."""
    by_line: dict[tuple[int, int, int], list[Mapping[str, Any]]] = {}
    for point in sorted(points, key=lambda point: point["share"]):
        by_line.setdefault((point["replicate"], point["k"], point["pair"]), []).append(point)
    found = []
    for place, along in sorted(by_line.items()):
        if any(point["validation_accuracy"] is None for point in along):
            found.append(Line(*place, None))
        elif len(along) == count:
            found.append(Line(*place, {part: [1 - point[f"{part}_accuracy"] for point in along] for part in PARTS}))
    return found


def stability(walked: Sequence[Line], tolerance: float, confidence: float) -> list[dict[str, Any]]:
    """For each k the barriers on each part of the data: over replicates, each the mean of its lines; and in how many
    replicates it is stable, which the validation examples say. Barriers are fractions of the examples."""
    return [
        _candidate([line for line in walked if line.k == k], k, tolerance, confidence)
        for k in sorted({line.k for line in walked})
    ]


def _candidate(here: Sequence[Line], k: int, tolerance: float, confidence: float) -> dict[str, Any]:
    found: dict[str, Any] = {"k": k}
    for part in PARTS:
        values = list(_by_replicate(here, part).values())
        interval = asdict(mean_interval(values, confidence))
        if interval["low"] is not None:
            interval["low"] = max(interval["low"], 0.0)  # no barrier is lower: ends count
        found[f"{part}_barrier"] = {"values": values, **interval}
    barriers = found["validation_barrier"]["values"]
    return found | {"replicates": len(barriers), "stable": sum(value <= tolerance for value in barriers)}


def _by_replicate(here: Sequence[Line], part: str) -> dict[int, float]:
    """The mean barrier of the lines of one k, by replicate."""
    errors: dict[int, list[list[float] | None]] = {}
    for line in here:
        errors.setdefault(line.replicate, []).append(None if line.errors is None else line.errors[part])
    return {replicate: mean_barrier(each) for replicate, each in errors.items()}


def rewound_to(walked: Sequence[Line], tolerance: float) -> list[int | None]:
    """What each replicate was rewound to where that was chosen: the first stable candidate. None where no candidate
    was stable, so that it was the last."""
    chosen = []
    for replicate in sorted({line.replicate for line in walked}):
        own = [line for line in walked if line.replicate == replicate]
        stable = [
            k
            for k in sorted({line.k for line in own})
            if _by_replicate([line for line in own if line.k == k], "validation")[replicate] <= tolerance
        ]
        chosen.append(min(stable, default=None))
    return chosen
