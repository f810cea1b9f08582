"""The shape of a mean curve over levels: is it monotone in pieces, or does it have a bump?

A bump is a level b between a denser a and a sparser c at which the mean is higher than at both. A curve without one
is a valley: it does not rise before its lowest level, and does not fall after it. That level is not known, so the
hypothesis "no bump" is a union over all levels. It is rejected only if it is rejected for each of them, which needs
no correction (Berger 1982, intersection-union test).

For one lowest level, the question is whether there is any rise before it, or any fall after it. Of all these pairs of
levels, the largest standardised sum of paired differences is compared with its distribution under sign flips: the
signs of all differences of a replicate are flipped together (Westfall & Young 1993, single step). So no level is
chosen by the data that test it, and the number of levels is accounted for. The same test with three pieces, down, up
and down, asks for a rise after the bump.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Literal

import numpy as np

from tombola.stats.paired_test import Values, is_exact, subsets

Direction = Literal["down", "up"]
"""Of a monotone piece: it does not rise, or does not fall."""

VALLEY: tuple[Direction, ...] = ("down", "up")
"""The shape of a curve without a bump."""

BUMP_AND_DESCENT: tuple[Direction, ...] = ("down", "up", "down")
"""The shape of a curve that does not rise again after its bump, if it has one."""

CHUNK = 4096
"""The number of sign flips that are computed at a time."""


def p_of_shape(curves: Values, pieces: Sequence[Direction], alpha: float) -> float | None:
    """The p-value of the hypothesis "the mean curve consists of these monotone pieces, in this order". It is small if
    the curve has more turns; pieces may be empty. None if there are too few replicates to reject at `alpha`: fewer
    than 6 at 0.05.

    `curves` has the shape (replicates, levels). The test is exact if the mean curve is flat and the differences
    between levels are symmetric around zero; for other curves of this shape, it rejects less often.
    """
    n, levels = curves.shape
    if not is_exact(n, alpha / 2):  # the fall of a true bump, with all signs flipped, may be as large as its rise
        return None
    steps = curves[:, None, :] - curves[:, :, None]  # [replicate, i, j]: from level i to level j
    lengths = np.sqrt(np.square(steps).sum(0))
    standardised = np.divide(steps, lengths, out=np.zeros_like(steps), where=lengths > 0)
    splits = [(0, *inner, levels - 1) for inner in combinations_with_replacement(range(levels), len(pieces) - 1)]
    observed = _statistics(np.ones((1, n)), standardised, splits, pieces)
    as_large, flips = np.zeros(len(splits), dtype=int), 1 - 2 * subsets(n)
    for start in range(0, len(flips), CHUNK):
        flipped = _statistics(flips[start : start + CHUNK], standardised, splits, pieces)
        as_large += (flipped >= observed - 1e-12).sum(1)
    return float((1 + as_large.max()) / (1 + len(flips)))


def _statistics(
    signs: Values, standardised: Values, splits: Sequence[tuple[int, ...]], pieces: Sequence[Direction]
) -> Values:
    """For each division of the levels into pieces, the largest step against the direction of the piece that it is
    in: shape (splits, flips). `signs` has the shape (flips, replicates)."""
    sums = np.moveaxis(np.tensordot(signs, standardised, 1), 0, -1)  # [i, j, flip]
    against = {"down": _largest_within(sums), "up": _largest_within(-sums)}
    return np.stack(
        [
            np.max([against[piece][split[k], split[k + 1]] for k, piece in enumerate(pieces)], axis=0)
            for split in splits
        ]
    )


def _largest_within(sums: Values) -> Values:
    """[first, last, flip]: the largest step between two levels from `first` to `last`; minus infinity if these are
    the same level."""
    largest, levels = sums.copy(), len(sums)
    largest[range(levels), range(levels)] = -np.inf
    for width in range(2, levels):
        for first in range(levels - width):
            last = first + width
            inner = np.maximum(largest[first + 1, last], largest[first, last - 1])
            np.maximum(largest[first, last], inner, out=largest[first, last])
    return largest


@dataclass(frozen=True)
class Bump:
    """The most prominent bump of a curve, by the indices of its levels."""

    before: int
    """The lowest level before the peak."""
    peak: int
    after: int
    """The lowest level after the peak."""
    last: int
    """The highest level from `after` on."""

    def heights(self, curve: Values) -> tuple[float, float, float]:
        """The rise to the peak, the fall after it, and the rise after that, of any curve at these levels."""
        before, peak, after, last = curve[[self.before, self.peak, self.after, self.last]]
        return float(peak - before), float(peak - after), float(last - after)


def most_prominent_bump(curve: Values) -> Bump | None:
    """The bump whose peak is the highest above the lowest levels on both sides, measured from the higher of these;
    None if there is none."""
    before, after = np.minimum.accumulate(curve), np.minimum.accumulate(curve[::-1])[::-1]
    prominence = curve - np.maximum(before, after)
    peak = int(prominence.argmax())
    if prominence[peak] <= 0:
        return None
    lowest = peak + int(curve[peak:].argmin())
    return Bump(int(curve[: peak + 1].argmin()), peak, lowest, lowest + int(curve[lowest:].argmax()))


def cross_fitted_heights(curves: Values) -> tuple[float, float, float] | None:
    """The mean `Bump.heights` over replicates, each measured at the levels that the mean of the other replicates
    chooses, so that the choice does not exaggerate them. A replicate whose others have no bump counts as 0. None for
    fewer than two replicates."""
    n = len(curves)
    if n < 2:
        return None
    total, heights = curves.sum(0), []
    for curve in curves:
        bump = most_prominent_bump((total - curve) / (n - 1))
        heights.append((0.0, 0.0, 0.0) if bump is None else bump.heights(curve))
    rise, fall, again = np.mean(heights, axis=0)
    return float(rise), float(fall), float(again)
