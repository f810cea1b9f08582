"""Paired tests over replicates: how much two measurements differ, and how certain that is.

The tests are about a quantity θ for which a_i - θ b_i is centred at zero: the mean difference of two paired
measurements (a are the differences, b ones), or the ratio of their means (a is one, b the other). A sign-flip test
decides whether a_i - θ b_i is centred at zero: if its distribution is symmetric, all 2^n sign patterns of the n
values are equally likely (Fisher 1935, section 21; Pitman 1937). The test does not assume normality and is exact for
any n. The bounds of θ enclose the values that the test does not reject; they are among the *typical values*
Σ_A a / Σ_A b of all subsets A of the replicates (Hartigan 1969). `docs/explanation/verdict.md` has the formulas.
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

MAX_EXACT = 16
"""Up to this many replicates the test uses all subsets; above, 2^16 - 1 random ones (Hartigan 1969, theorem 2;
Phipson & Smyth 2010), which give p to about 0.001."""

POWER = 0.9
"""The probability with which the proposed number of replicates should decide a test."""

MAX_PROPOSED = 1000
"""The largest number of replicates that is proposed."""


@functools.lru_cache(maxsize=4)
def subsets(n: int) -> npt.NDArray[np.float64]:
    """The non-empty subsets of `n` replicates, or random ones: 0 and 1, shape (subsets, n)."""
    if n <= MAX_EXACT:
        bits = np.arange(1, 2**n, dtype=np.uint32)[:, None] >> np.arange(n, dtype=np.uint32)
        return (bits & 1).astype(np.float64)
    drawn = np.random.default_rng(n).integers(0, 2, size=(2**MAX_EXACT - 1, n))
    return drawn.astype(np.float64)


def min_replicates(alpha: float) -> int:
    """How many replicates the exact test needs to reject anything: the smallest n with 2^-n <= `alpha`."""
    return math.ceil(-math.log2(alpha) - 1e-9)


def is_exact(n: int, alpha: float) -> bool:
    """Whether the sign-flip test of `n` replicates can reject at `alpha`: it has a p-value that is small enough."""
    return min(n, MAX_EXACT) >= min_replicates(alpha)


@dataclass(frozen=True)
class PairedTest:
    """Tests and bounds of θ, from the pairs (a_i, b_i), one for each replicate.

    With too few replicates for the exact test to reject at `alpha` (fewer than 5 at 0.05), Student's t test replaces
    it, which assumes that a_i - θ b_i is roughly normal.
    """

    a: Values
    b: Values
    alpha: float
    """The error rate allowed for each test and each one-sided bound."""

    @classmethod
    def difference(cls, values: Sequence[float], reference: Sequence[float], alpha: float) -> PairedTest:
        """θ is the mean of `values` minus `reference`."""
        differences = np.asarray(values, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
        return cls(differences, np.ones(len(differences)), alpha)

    @classmethod
    def ratio(cls, values: Sequence[float], reference: Sequence[float], alpha: float) -> PairedTest:
        """θ is the mean of `values` divided by the mean of `reference`, which must be positive."""
        return cls(np.asarray(values, dtype=np.float64), np.asarray(reference, dtype=np.float64), alpha)

    @property
    def n(self) -> int:
        """The number of replicates."""
        return len(self.a)

    @property
    def exact(self) -> bool:
        """Whether the sign-flip test is used, instead of Student's t test."""
        return is_exact(self.n, self.alpha)

    @property
    def estimate(self) -> float:
        """The estimate of θ."""
        return float(self.a.sum() / self.b.sum())

    @functools.cached_property
    def _typical_values(self) -> Values:
        chosen = subsets(self.n)
        sums = chosen @ np.column_stack([self.a, self.b])
        with np.errstate(divide="ignore", invalid="ignore"):
            # A random subset may be empty: it stands for the observed signs and counts as a tie.
            return np.where(sums[:, 1] > 0, sums[:, 0] / sums[:, 1], np.nan)

    @functools.cached_property
    def _mirrored(self) -> PairedTest:
        """The test of -θ. Its typical values are the negatives of these, bit for bit."""
        mirrored = PairedTest(-self.a, self.b, self.alpha)
        if self.exact:
            # Where a cached_property keeps its value. A difference, for computed sums have no -0.0.
            mirrored.__dict__["_typical_values"] = 0.0 - self._typical_values
        return mirrored

    def p_above(self, value: float) -> float:
        """The p-value of the hypothesis "θ is at most `value`": small when θ is above it."""
        if not self.exact:
            return self._student_t(value)
        below = ~(self._typical_values > value + _rounding(value))  # ties and empty subsets count against "above"
        return float((1 + below.sum()) / (1 + len(below)))

    def p_below(self, value: float) -> float:
        """The p-value of the hypothesis "θ is at least `value`": small when θ is below it."""
        return self._mirrored.p_above(-value)

    @property
    def low(self) -> float | None:
        """The one-sided lower bound: θ is above any smaller value with p <= alpha. None if it does not exist."""
        if not self.exact:
            return self._fieller_bound(-1)
        kept = np.sort(np.where(np.isnan(self._typical_values), -np.inf, self._typical_values))
        bound = float(kept[int(self.alpha * (1 + len(kept)) + 1e-9) - 1])
        return bound if math.isfinite(bound) else None

    @property
    def high(self) -> float | None:
        """The one-sided upper bound, likewise."""
        if not self.exact:
            return self._fieller_bound(1)
        bound = self._mirrored.low
        return None if bound is None else -bound

    def bounds(self, value: float) -> tuple[float | None, float | None]:
        """`low` and `high`; a bound that only rounding tells from `value` is `value`, for ties count against both
        sides. So `low` is above `value` exactly if `p_above(value)` is at most alpha, and `high` likewise."""
        low, high = (
            value if bound is not None and abs(bound - value) <= _rounding(value) else bound
            for bound in (self.low, self.high)
        )
        return low, high

    def more_replicates(self, value: float) -> int | None:
        """How many more replicates would probably show on which side of `value` θ is, if the mean and the standard
        deviation of a - value b stay as they are. None if more than `MAX_PROPOSED` would be needed in all."""
        mean, spread = self._mean_and_spread(value)
        fewest = max(min_replicates(self.alpha), self.n + 1)
        if spread == 0:
            return fewest - self.n if mean else None
        n = np.arange(fewest, max(fewest, MAX_PROPOSED) + 1, dtype=np.float64)
        noncentrality = np.minimum(abs(mean) / spread * np.sqrt(n), 30.0)  # beyond this the power is 1
        power = 1 - nctdtr(n - 1, noncentrality, stdtrit(n - 1, 1 - self.alpha))
        sufficient = np.flatnonzero(power >= POWER)
        return int(n[sufficient[0]]) - self.n if len(sufficient) else None

    def _mean_and_spread(self, value: float) -> tuple[float, float]:
        """The mean and the standard deviation of a - value b."""
        centred = self.a - value * self.b
        return float(centred.mean()), float(centred.std(ddof=1)) if self.n > 1 else math.inf

    def _student_t(self, value: float) -> float:
        mean, spread = self._mean_and_spread(value)
        if self.n < 2 or spread <= _rounding(mean):  # equal differences give no estimate of the spread
            return 1.0
        return float(stdtr(self.n - 1, -mean / spread * self.n**0.5))

    def _fieller_bound(self, side: int) -> float | None:
        """The bound of θ by Student's t (for a ratio: Fieller 1954): the lower for `side` -1, the upper for 1."""
        if self.n < 2 or self._mean_and_spread(self.estimate)[1] <= _rounding(self.estimate):
            return None
        square = float(stdtrit(self.n - 1, 1 - self.alpha)) ** 2 / self.n
        ((aa, ab), (_, bb)) = np.cov(self.a, self.b)
        a, b = self.a.mean(), self.b.mean()
        first, second, third = b * b - square * bb, a * b - square * ab, a * a - square * aa
        inside = second * second - first * third
        if first <= 0:
            return None
        return float((second + side * math.sqrt(max(inside, 0.0))) / first)


def _rounding(value: float) -> float:
    """How much rounding may change a sum; smaller differences count as equal."""
    return 1e-12 * max(1.0, abs(value))


def p_better_in_any(differences: Sequence[Values], alpha: float) -> float:
    """The p-value of the hypothesis "none of these is centred above zero", for paired measurements over the same
    replicates.

    The signs of all measurements of a replicate are flipped together, and the largest of the standardised sums is
    compared (Westfall & Young 1993, single step). This keeps the error rate for any correlation of the measurements.
    With too few replicates for this test, the smallest p-value of Student's t is multiplied by the number of
    measurements (Bonferroni).
    """
    n = len(differences[0])
    if not is_exact(n, alpha):
        separate = [PairedTest(values, np.ones(n), alpha).p_above(0.0) for values in differences]
        return min(1.0, len(separate) * min(separate))
    lengths = np.array([np.sqrt(np.square(values).sum()) for values in differences])
    standardised = np.column_stack(differences)[:, lengths > 0] / lengths[lengths > 0]
    if not standardised.size:
        return 1.0
    observed = standardised.sum(0)
    flipped = observed - 2 * (subsets(n) @ standardised)  # the sums with the signs of each subset flipped
    return float((1 + (flipped.max(1) >= observed.max() - 1e-12).sum()) / (1 + len(flipped)))
