"""Stability: the error barriers between trainings that share their first k iterations, over replicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tombola.evidence.interval import mean_interval
from tombola.studies.stability import barrier

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Line:
    """A straight line between the ends of two trainings."""

    replicate: int
    k: int
    pair: int
    errors: Mapping[str, list[float] | None]
    """By part of the data, from end to end; None where a training diverged."""

    def barrier(self, part: str) -> float:
        """See `tombola.studies.stability`; 1 where a training diverged."""
        errors = self.errors[part]
        return 1.0 if errors is None else barrier(errors)


def lines(points: Sequence[Mapping[str, Any]]) -> list[Line]:
    """The lines whose both ends are there, from the rows of `stability.parquet`."""
    by_line: dict[tuple[int, int, int], list[Mapping[str, Any]]] = {}
    for point in sorted(points, key=lambda point: point["share"]):
        by_line.setdefault((point["replicate"], point["k"], point["pair"]), []).append(point)
    found = []
    for place, along in sorted(by_line.items()):
        if (along[0]["share"], along[-1]["share"]) == (0.0, 1.0):
            errors = {part: _errors([point[f"{part}_accuracy"] for point in along]) for part in PARTS}
            found.append(Line(*place, errors))
    return found


def _errors(accuracies: Sequence[float | None]) -> list[float] | None:
    there = [1 - accuracy for accuracy in accuracies if accuracy is not None]
    return there if len(there) == len(accuracies) else None


def stability(points: Sequence[Mapping[str, Any]], tolerance: float, confidence: float) -> list[dict[str, Any]]:
    """For each k the barriers on each part of the data: over replicates, each the mean of its lines; and in how many
    replicates it is stable, which the validation examples say. Barriers are fractions of the examples."""
    walked = lines(points)
    return [
        _candidate([line for line in walked if line.k == k], k, tolerance, confidence) for k in _candidates(walked)
    ]


def _candidates(walked: Sequence[Line]) -> list[int]:
    return sorted({line.k for line in walked})


def _candidate(here: Sequence[Line], k: int, tolerance: float, confidence: float) -> dict[str, Any]:
    found: dict[str, Any] = {"k": k}
    for part in PARTS:
        values = list(_by_replicate(here, part).values())
        interval = asdict(mean_interval(values, confidence))
        if interval["low"] is not None:
            interval["low"] = max(interval["low"], 0.0)  # no barrier is lower: ends count
        found[f"{part}_barrier"] = {"values": values, **interval}
    stable = sum(value <= tolerance for value in found["validation_barrier"]["values"])
    return found | {"replicates": len(_by_replicate(here, "validation")), "stable": stable}


def _by_replicate(here: Sequence[Line], part: str) -> dict[int, float]:
    replicates = sorted({line.replicate for line in here})
    return {r: float(np.mean([line.barrier(part) for line in here if line.replicate == r])) for r in replicates}


def rewound_to(points: Sequence[Mapping[str, Any]], tolerance: float) -> list[int]:
    """What each replicate was rewound to where that was chosen: the first stable candidate, or the last."""
    walked = lines(points)
    chosen = []
    for replicate in sorted({line.replicate for line in walked}):
        own = [line for line in walked if line.replicate == replicate]
        barriers = {k: _by_replicate([line for line in own if line.k == k], "validation") for k in _candidates(own)}
        stable = [k for k, barrier in barriers.items() if barrier[replicate] <= tolerance]
        chosen.append(min(stable, default=max(barriers)))
    return chosen
