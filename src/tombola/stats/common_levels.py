"""Levels of several experiments that have about the same fraction of weights left."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tombola.stats.summary import LevelSummary, Summary

TOLERANCE = 1.12
"""The largest ratio of fractions that count as about the same: half a level, if each level prunes a fifth."""


def common_levels(experiments: Sequence[Summary]) -> list[list[LevelSummary]]:
    """Groups of levels with about the same fraction of weights left, one level of each experiment, in the order of
    the first experiment's levels.

    The dense networks are always a group. No level is in two groups.
    """
    if not experiments:
        return []
    groups: list[list[LevelSummary]] = []
    for level in experiments[0].levels:
        nearest = [_nearest(each, level) for each in experiments]
        group = [found for found in nearest if found is not None]
        distinct = not groups or all(a.level < b.level for a, b in zip(groups[-1], group, strict=False))
        if len(group) == len(experiments) and distinct:
            groups.append(group)
    return groups


def _nearest(experiment: Summary, level: LevelSummary) -> LevelSummary | None:
    def distance(other: LevelSummary) -> float:
        """The distance of the fractions, in logarithms. A dense network only matches another dense network."""
        if (level.level == 0) != (other.level == 0) or not (level.weights_left and other.weights_left):
            return math.inf
        return abs(math.log(other.weights_left / level.weights_left))

    nearest = min(experiment.levels, key=distance, default=None)
    return nearest if nearest is not None and distance(nearest) <= math.log(TOLERANCE) else None
