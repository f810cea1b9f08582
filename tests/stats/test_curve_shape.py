from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from tombola.stats.curve_shape import (
    BUMP_AND_DESCENT,
    VALLEY,
    Bump,
    cross_fitted_heights,
    most_prominent_bump,
    p_of_shape,
)
from tombola.stats.paired_test import Values

ALPHA = 0.05
LEVELS = np.linspace(0, 1, 8)
VALLEYS = {
    "flat": 0 * LEVELS,
    "falling": -10 * LEVELS,
    "rising": 10 * LEVELS,
    "valley": 30 * (LEVELS - 0.6) ** 2,
    "a step, then flat": np.where(LEVELS < 0.3, 5.0, 0.0),
    "flat, then a step": np.where(LEVELS > 0.8, 5.0, 0.0),
}
BUMP = np.array([0.0, 1, 2, 1, -3, -6, -6.5, -7])
AND_RISE = BUMP + np.array([0, 0, 0, 0, 0, 0, 0, 4.0])


def curves(mean: Values, replicates: int, generator: np.random.Generator) -> Values:
    """Curves with noise, with a level of their own in each replicate, rounded as fractions of few examples are."""
    noise = generator.normal(size=(replicates, len(mean)))
    return np.round(3 * (mean + noise + generator.normal(size=(replicates, 1)))) / 3


def rejections(mean: Values, replicates: int, experiments: int) -> tuple[float, float]:
    """How often a bump is found, and how often a rise after it."""
    generator = np.random.default_rng(0)
    drawn = [curves(mean, replicates, generator) for _ in range(experiments)]
    shapes = (VALLEY, BUMP_AND_DESCENT)
    p = np.array([[p_of_shape(each, shape, ALPHA) for shape in shapes] for each in drawn], dtype=float)
    bumps, rises = (p <= ALPHA).mean(0)
    return float(bumps), float(rises)


@pytest.mark.parametrize("mean", VALLEYS.values(), ids=VALLEYS)
def test_a_valley_is_rarely_called_a_bump(mean: Values) -> None:
    bumps, rises = rejections(mean, 8, 150)
    assert max(bumps, rises) <= 0.09  # 0.05 and 2.2 standard errors


def test_bumps_and_rises_after_them_are_found() -> None:
    bumps, rises = rejections(BUMP, 10, 50)
    assert bumps >= 0.6
    assert rises <= 0.15
    bumps, rises = rejections(AND_RISE, 10, 50)
    assert min(bumps, rises) >= 0.6


def test_the_p_value_counts_all_sign_flips() -> None:
    drawn = curves(BUMP[:4], 6, np.random.default_rng(1))
    steps = {(i, j): drawn[:, j] - drawn[:, i] for i, j in combinations(range(4), 2)}
    found = []
    for lowest in range(4):
        against = [step for (_, j), step in steps.items() if j <= lowest]
        against += [-step for (i, _), step in steps.items() if i >= lowest]
        scaled = np.array([step / np.linalg.norm(step) if step.any() else step for step in against])
        largest = [max(scaled @ signs) for signs in product([1, -1], repeat=6)]
        found.append(np.mean(np.array(largest) >= largest[0] - 1e-12))
    assert p_of_shape(drawn, VALLEY, ALPHA) == pytest.approx(max(found))


def test_more_flips_than_fit_in_one_chunk_are_all_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = curves(BUMP, 7, np.random.default_rng(2))
    whole = p_of_shape(drawn, BUMP_AND_DESCENT, ALPHA)
    monkeypatch.setattr("tombola.stats.curve_shape.CHUNK", 10)
    assert p_of_shape(drawn, BUMP_AND_DESCENT, ALPHA) == whole


def test_few_replicates_cannot_tell() -> None:
    generator = np.random.default_rng(3)
    assert p_of_shape(curves(10 * BUMP, 5, generator), VALLEY, ALPHA) is None
    assert p_of_shape(curves(10 * BUMP, 6, generator), VALLEY, ALPHA) == pytest.approx(2 / 2**6)


def test_the_most_prominent_bump_is_found() -> None:
    curve = np.array([3.0, 2, 4, 3.5, 7, 1, 2, 6])
    bump = most_prominent_bump(curve)
    assert bump == Bump(before=1, peak=4, after=5, last=7)
    assert bump.heights(curve) == (5, 6, 5)
    assert all(most_prominent_bump(mean) is None for mean in VALLEYS.values())


def test_heights_are_measured_at_the_levels_that_others_choose() -> None:
    one, other = np.array([0.0, 2, 0, 0, 1]), np.array([0.0, 0, 3, 0, 0])
    # `one` is flat at the levels 0, 2 and 3 of the other's bump; `other` is measured at the levels 0, 1, 2 and 4.
    assert cross_fitted_heights(np.stack([one, other])) == pytest.approx((0, -3 / 2, -3 / 2))
    assert cross_fitted_heights(one[None]) is None
    assert cross_fitted_heights(np.zeros((3, 5))) == (0, 0, 0)
