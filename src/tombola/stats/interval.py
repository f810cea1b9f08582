"""Means over replicates and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit  # the quantile of Student's t; scipy.stats takes a second longer to import


@dataclass(frozen=True)
class Interval:
    """A mean and the bounds of its confidence interval; the bounds are None for fewer than two values."""

    mean: float
    low: float | None
    high: float | None


def mean_interval(values: Sequence[float], confidence: float) -> Interval:
    """The mean of `values` with its two-sided Student's t interval of `confidence`, in (0, 1).

    Raises `ValueError` when there are no values.
    """
    if not values:
        raise ValueError("there is no mean of no values")
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, None, None)
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    half = float(stdtrit(len(values) - 1, (1 + confidence) / 2)) * error
    return Interval(mean, mean - half, mean + half)
