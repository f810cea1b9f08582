"""Error rates of an experiment that is judged several times while it grows, and the levels α that control them.

After n_1 < n_2 < ... < n_K replicates the statistics of a paired test are, by the central limit theorem, about
multivariate normal with mean 0 and correlations √(n_j / n_k) if its hypothesis is just true: the values of a Brownian
motion at the information fractions t_k = n_k / n_K, divided by √t_k. The probability that one of them is above its
bound follows from integrating over the motions that have stayed below all earlier bounds (Armitage, McPherson & Rowe
1969).

Planned looks share the error rate α by a spending function (Lan & DeMets 1983): look k may add the increase of the
function since look k - 1. This function gives bounds like those of O'Brien & Fleming (1979): little is spent early,
so that the last look is judged almost as if it were the only one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri  # scipy.stats takes a second longer to import

Values = npt.NDArray[np.float64]

NODES = 400
"""The nodes of each integral (Gauss-Legendre): exact to about 1e-9 for looks that differ by a tenth."""

LOWEST = 8.5
"""Integrals begin this many standard deviations below 0."""

SMALLEST_LEVEL = 1e-12
"""Smaller levels are raised to it. A test cannot distinguish them from 0, and the effect on α is negligible."""


def spent(fraction: float, alpha: float) -> float:
    """The error rate that may be spent up to an information fraction in (0, 1]: 2 - 2 Φ(z_{α/2} / √t), one-sided
    (Lan & DeMets 1983, function α₁*)."""
    return float(2 * ndtr(ndtri(alpha / 2) / fraction**0.5))


@functools.lru_cache(maxsize=64)
def nominal_levels(looks: tuple[int, ...], alpha: float) -> tuple[float, ...]:
    """The level α_k of each look, given its number of replicates, at which one-sided tests err with probability
    `alpha` in all. The probability of a first error at look k is the increase of `spent` there."""
    motion, levels, before = _Motion(), [], 0.0
    for n in looks:
        fraction = n / looks[-1]
        total = spent(fraction, alpha)
        bound = motion.bound(fraction, total - before)
        levels.append(max(float(ndtr(-bound / fraction**0.5)), SMALLEST_LEVEL))
        motion, before = motion.below(fraction, bound), total
    return tuple(levels)


def error_rate(looks: Sequence[int], alpha: float) -> float:
    """The probability that a one-sided test rejects a hypothesis that is just true at one or more looks, if it is
    tested at level `alpha` at each look."""
    motion, total = _Motion(), 0.0
    for n in looks:
        fraction = n / looks[-1]
        bound = -float(ndtri(alpha)) * fraction**0.5
        total += motion.above(fraction, bound)
        motion = motion.below(fraction, bound)
    return total


class _Motion:
    """A Brownian motion that has stayed below the bounds so far: its density at `time`, at quadrature points."""

    def __init__(self, time: float = 0.0, points: Values | None = None, mass: Values | None = None) -> None:
        self.time = time
        self.points = np.zeros(1) if points is None else points
        self.mass = np.ones(1) if mass is None else mass
        """The density times the weights of the quadrature."""

    def above(self, time: float, bound: float) -> float:
        """The probability that the motion is above `bound` at a later `time`."""
        return float(self.mass @ ndtr((self.points - bound) / (time - self.time) ** 0.5))

    def below(self, time: float, bound: float) -> _Motion:
        """The part of the motion that is below `bound` at a later `time`."""
        nodes, weights = _quadrature()
        lowest, deviation = -LOWEST * time**0.5, (time - self.time) ** 0.5
        points = lowest + (bound - lowest) * (nodes + 1) / 2
        steps = (points[:, None] - self.points) / deviation
        density = np.exp(-steps * steps / 2) @ self.mass / (deviation * (2 * np.pi) ** 0.5)
        return _Motion(time, points, density * weights * (bound - lowest) / 2)

    def bound(self, time: float, probability: float) -> float:
        """The bound that the motion exceeds at `time` with this probability, by bisection."""
        low: float = -LOWEST * time**0.5
        high: float = 40 * time**0.5
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (middle, high) if self.above(time, middle) > probability else (low, middle)
        return high


@functools.cache
def _quadrature() -> tuple[Values, Values]:
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return nodes, weights
