"""Paired comparisons over replicates: how far one thing is from another, and how sure that is.

What is compared is a quantity θ with a_i - θ b_i centred at zero: the mean difference of two paired measurements
(a their differences, b ones), or the ratio of their means (a the one, b the other). Whether a_i - θ b_i is centred
at zero is tested by flipping signs: if it is symmetric, all 2^n ways of giving the n values signs are equally likely
(Fisher 1935, section 21; Pitman 1937). No normal distribution is supposed, and the test is exact for any n. The
bounds of θ are those values that the test does not reject; they are found among the *typical values*
Σ_A a / Σ_A b of all subsets A of the replicates (Hartigan 1969). `docs/verdict.md` has the formulas.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import nctdtr, stdtr, stdtrit  # scipy.stats takes a second longer to import

Values = npt.NDArray[np.float64]

EXACT = 16
"""Up to so many replicates all subsets are looked at; of more, as many random ones (Hartigan 1969, theorem 2;
Phipson & Smyth 2010): p is then right to about 0.001."""

PROBABLY = 0.9
"""With this probability the number of replicates that is proposed should decide a test."""

MOST = 1000
"""More replicates than this are not proposed."""


@functools.lru_cache(maxsize=4)
def subsets(n: int) -> npt.NDArray[np.float64]:
    """Subsets of `n` things, not the empty one: 0 and 1 of shape (subsets, n)."""
    if n <= EXACT:
        bits = np.arange(1, 2**n, dtype=np.uint32)[:, None] >> np.arange(n, dtype=np.uint32)
        return (bits & 1).astype(np.float64)
    drawn = np.random.default_rng(n).integers(0, 2, size=(2**EXACT - 1, n))
    return drawn.astype(np.float64)


def enough_for(alpha: float) -> int:
    """How many replicates the exact test needs before it can reject anything at `alpha`: 2^-n must not be larger."""
    return math.ceil(-math.log2(alpha) - 1e-9)


@dataclass(frozen=True)
class Paired:
    """θ of the pairs (a_i, b_i), one for each replicate.

    Where there are too few replicates for the exact test to reject at `alpha` (fewer than 5 at 0.05), Student's t is
    used instead, which supposes that a_i - θ b_i is roughly normal.
    """

    a: Values
    b: Values
    alpha: float
    """The chance of error that each one-sided bound, and each test, is allowed."""

    @classmethod
    def difference(cls, of: Sequence[float], to: Sequence[float], alpha: float) -> Paired:
        """θ is the mean of `of` minus `to`."""
        differences = np.asarray(of, dtype=np.float64) - np.asarray(to, dtype=np.float64)
        return cls(differences, np.ones(len(differences)), alpha)

    @classmethod
    def ratio(cls, of: Sequence[float], to: Sequence[float], alpha: float) -> Paired:
        """θ is the mean of `of` divided by the mean of `to`; `to` must be positive."""
        return cls(np.asarray(of, dtype=np.float64), np.asarray(to, dtype=np.float64), alpha)

    @property
    def n(self) -> int:
        """How many replicates."""
        return len(self.a)

    @property
    def exact(self) -> bool:
        """Whether the sign-flip test is used; otherwise it is Student's t."""
        return self.n >= enough_for(self.alpha)

    @property
    def estimate(self) -> float:
        """θ itself."""
        return float(self.a.sum() / self.b.sum())

    @functools.cached_property
    def _typical(self) -> Values:
        chosen = subsets(self.n)
        sums = chosen @ np.column_stack([self.a, self.b])
        with np.errstate(divide="ignore", invalid="ignore"):
            # A random subset may be empty: it stands for the data as they are, and counts in favour of nothing.
            return np.where(sums[:, 1] > 0, sums[:, 0] / sums[:, 1], np.nan)

    def p_above(self, value: float) -> float:
        """The p-value of "θ is at most `value`": small where θ is surely above it."""
        if not self.exact:
            return self._t(value)
        below = ~(self._typical > value + _tiny(value))  # ties and empty subsets count against
        return float((1 + below.sum()) / (1 + len(below)))

    def p_below(self, value: float) -> float:
        """The p-value of "θ is at least `value`": small where θ is surely below it."""
        return Paired(-self.a, self.b, self.alpha).p_above(-value)

    @property
    def low(self) -> float | None:
        """The lower bound, one-sided: θ is above any smaller value with p <= alpha. None where there is none."""
        if not self.exact:
            return self._fieller(-1)
        kept = np.sort(np.where(np.isnan(self._typical), -np.inf, self._typical))
        bound = float(kept[int(self.alpha * (1 + len(kept)) + 1e-9) - 1])
        return bound if math.isfinite(bound) else None

    @property
    def high(self) -> float | None:
        """The upper bound, one-sided."""
        if not self.exact:
            return self._fieller(1)
        bound = Paired(-self.a, self.b, self.alpha).low
        return None if bound is None else -bound

    def more(self, value: float, most: int = MOST) -> int | None:
        """How many more replicates would probably show on which side of `value` θ is, if what the replicates have
        shown so far (the mean and the spread of a - value b) goes on. None for more than `most`."""
        shift, spread = self._shift(value)
        fewest = max(enough_for(self.alpha), self.n + 1)
        if spread == 0:
            return fewest - self.n if shift else None
        n = np.arange(fewest, max(fewest, most) + 1, dtype=np.float64)
        noncentrality = np.minimum(abs(shift) / spread * np.sqrt(n), 30.0)  # further out it is certain
        power = 1 - nctdtr(n - 1, noncentrality, stdtrit(n - 1, 1 - self.alpha))
        sufficient = np.flatnonzero(power >= PROBABLY)
        return int(n[sufficient[0]]) - self.n if len(sufficient) else None

    def _shift(self, value: float) -> tuple[float, float]:
        """The mean of a - value b, and its standard deviation."""
        centred = self.a - value * self.b
        return float(centred.mean()), float(centred.std(ddof=1)) if self.n > 1 else math.inf

    def _t(self, value: float) -> float:
        shift, spread = self._shift(value)
        if self.n < 2 or spread <= _tiny(shift):  # equal differences say nothing of how much they vary
            return 1.0
        return float(stdtr(self.n - 1, -shift / spread * self.n**0.5))

    def _fieller(self, side: int) -> float | None:
        """The bound that Student's t puts on θ (for a ratio: Fieller 1954)."""
        if self.n < 2 or self._shift(self.estimate)[1] <= _tiny(self.estimate):
            return None
        square = float(stdtrit(self.n - 1, 1 - self.alpha)) ** 2 / self.n
        ((aa, ab), (_, bb)) = np.cov(self.a, self.b)
        a, b = self.a.mean(), self.b.mean()
        first, second, third = b * b - square * bb, a * b - square * ab, a * a - square * aa
        inside = second * second - first * third
        if first <= 0:
            return None
        return float((second + side * math.sqrt(max(inside, 0.0))) / first)


def _tiny(value: float) -> float:
    """What rounding may do to sums, and is no difference."""
    return 1e-12 * max(1.0, abs(value))


def better_in_any(differences: Sequence[Values], alpha: float) -> float:
    """The p-value of "none of these is centred above zero": several paired measurements of the same replicates.

    Signs are flipped for all measurements of a replicate together, and the largest of their standardised sums is
    compared (Westfall & Young 1993, single step), which holds the chance of error whatever they have to do with each
    other. With too few replicates for that, the smallest p-value of Student's t is multiplied by their number.
    """
    n = len(differences[0])
    if n < enough_for(alpha):
        alone = [Paired(values, np.ones(n), alpha).p_above(0.0) for values in differences]
        return min(1.0, len(alone) * min(alone))
    lengths = np.array([np.sqrt(np.square(values).sum()) for values in differences])
    standardised = np.column_stack(differences)[:, lengths > 0] / lengths[lengths > 0]
    if not standardised.size:
        return 1.0
    observed = standardised.sum(0)
    flipped = observed - 2 * (subsets(n) @ standardised)  # the sums with the signs of each subset flipped
    return float((1 + (flipped.max(1) >= observed.max() - 1e-12).sum()) / (1 + len(flipped)))
