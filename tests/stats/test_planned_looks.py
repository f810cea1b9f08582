from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tombola.stats.planned_looks import error_rate, nominal_levels, spent


@pytest.mark.parametrize(
    ("looks", "alpha", "bounds"),
    [
        # Reboussin, DeMets, Kim & Lan (2000), Computations for group sequential boundaries
        ((1, 2, 3, 4, 5), 0.025, [4.8769, 3.3570, 2.6803, 2.2898, 2.0310]),
        ((1, 2), 0.025, [2.9626, 1.9686]),
    ],
)
def test_bounds_are_those_of_published_tables(looks: tuple[int, ...], alpha: float, bounds: list[float]) -> None:
    assert stats.norm.isf(nominal_levels(looks, alpha)) == pytest.approx(bounds, abs=2e-4)


def test_early_looks_spend_little_and_all_spend_alpha() -> None:
    assert [spent(t, 0.025) for t in (0.2, 0.5, 1.0)] == pytest.approx([5.4e-7, 0.00153, 0.025], rel=0.01)
    assert nominal_levels((7,), 0.05) == pytest.approx((0.05,))
    assert nominal_levels((20, 1000), 0.001)[-1] == pytest.approx(0.001)
    levels = nominal_levels((5, 10, 20), 0.05)
    assert list(levels) == sorted(levels)
    assert min(levels) > 0
    assert max(levels) < 0.05


@pytest.mark.parametrize(("looks", "twice"), [(1, 0.05), (2, 0.083), (3, 0.107), (4, 0.126), (5, 0.142), (10, 0.193)])
def test_repeated_tests_err_as_armitage_mcpherson_and_rowe_computed(looks: int, twice: float) -> None:
    """Armitage, McPherson & Rowe (1969), table 2, of two-sided tests at 5%."""
    assert 2 * error_rate(range(1, looks + 1), 0.025) == pytest.approx(twice, abs=1e-3)


def test_planned_levels_keep_the_error_rate() -> None:
    """The integral agrees with simulated motions."""
    looks = np.array([5, 10, 20])
    levels = nominal_levels(tuple(looks.tolist()), 0.05)
    steps = np.random.default_rng(0).normal(size=(200_000, 3)) * np.sqrt(np.diff(looks, prepend=0))
    crossed = steps.cumsum(1) / np.sqrt(looks) > stats.norm.isf(levels)
    assert crossed.any(1).mean() == pytest.approx(0.05, abs=0.002)
    judged_each_time = steps.cumsum(1) / np.sqrt(looks) > stats.norm.isf(0.05)
    assert judged_each_time.any(1).mean() == pytest.approx(error_rate((5, 10, 20), 0.05), abs=0.003)
