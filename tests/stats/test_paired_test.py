from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tombola.stats.paired_test import PairedTest, min_replicates, p_better_in_any, subsets

ALPHA = 0.05
VALUES = st.lists(st.integers(-1000, 1000).map(lambda x: x / 64), min_size=5, max_size=9)


def difference(values: Sequence[float]) -> PairedTest:
    return PairedTest.difference(values, [0.0] * len(values), ALPHA)


def p_by_flipping(values: Sequence[float], value: float) -> float:
    """The definition of the sign-flip test: the share of all sign patterns whose sum is at least the observed one."""
    centred = np.asarray(values) - value
    sums = [float(np.dot(signs, centred)) for signs in itertools.product((1, -1), repeat=len(values))]
    return float(np.mean(np.array(sums) >= centred.sum() - 1e-9))


@settings(max_examples=30)
@given(VALUES, st.integers(-20, 20))
def test_p_values_count_all_sign_flips(values: list[float], value: int) -> None:
    assert difference(values).p_above(value) == pytest.approx(p_by_flipping(values, value))
    assert difference(values).p_below(value) == pytest.approx(p_by_flipping([-v for v in values], -value))


@settings(max_examples=30)
@given(VALUES)
def test_bounds_enclose_the_values_that_are_not_rejected(values: list[float]) -> None:
    paired = difference(values)
    low, high = paired.low, paired.high
    assert low is not None
    assert high is not None
    assert low <= paired.estimate <= high
    assert paired.p_above(low - 1e-6) <= ALPHA < paired.p_above(low + 1e-6)
    assert paired.p_below(high + 1e-6) <= ALPHA < paired.p_below(high - 1e-6)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=5, max_size=8))
def test_ratio_tests_equal_difference_tests_of_scaled_values(pairs: list[tuple[int, int]]) -> None:
    of, to = zip(*pairs, strict=True)
    ratio = PairedTest.ratio(of, to, ALPHA)
    assert ratio.estimate == pytest.approx(sum(of) / sum(to))
    for times in (0.5, 1.0, 1.25):
        scaled = difference([a - times * b for a, b in pairs])
        assert ratio.p_below(times) == pytest.approx(scaled.p_below(0))
        assert ratio.p_above(times) == pytest.approx(scaled.p_above(0))
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.low <= ratio.estimate <= ratio.high


def test_few_replicates_use_students_t() -> None:
    assert [min_replicates(alpha) for alpha in (0.05, 0.01, 0.5, 1 / 32)] == [5, 7, 1, 5]
    values = [0.3, 0.5, 0.1]
    paired = difference(values)
    assert not paired.exact
    assert paired.p_above(0.0) == pytest.approx(stats.ttest_1samp(values, 0.0, alternative="greater").pvalue)
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(1 - 2 * ALPHA)
    assert (paired.low, paired.high) == (pytest.approx(low), pytest.approx(high))
    of, to = [300.0, 310, 280, 305], [500.0, 480, 510, 520]
    ratio = PairedTest.ratio(of, to, ALPHA)
    assert ratio.high is not None
    at_the_bound = [a - ratio.high * b for a, b in zip(of, to, strict=True)]
    assert stats.ttest_1samp(at_the_bound, 0.0, alternative="less").pvalue == pytest.approx(ALPHA)


def test_one_replicate_has_no_bounds_and_p_1() -> None:
    alone = difference([0.3])
    assert (alone.low, alone.high, alone.p_above(0.0)) == (None, None, 1.0)


def test_equal_differences_give_the_smallest_possible_p() -> None:
    assert difference([0.1] * 5).p_above(0.0) == 1 / 32
    assert difference([0.0] * 5).p_above(0.0) == 1.0  # ties are no evidence
    assert difference([0.1] * 5).low == pytest.approx(0.1)


def test_many_replicates_use_random_subsets() -> None:
    values = np.random.default_rng(1).normal(0.25, 1, 40)
    paired = difference(values)
    assert len(subsets(40)) == 2**16 - 1
    assert paired.p_above(0.0) == pytest.approx(
        stats.ttest_1samp(values, 0.0, alternative="greater").pvalue, abs=0.01
    )
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(1 - 2 * ALPHA)
    assert (paired.low, paired.high) == (pytest.approx(low, abs=0.05), pytest.approx(high, abs=0.05))


def test_the_proposed_number_of_replicates_has_the_stated_power() -> None:
    values = np.random.default_rng(2).normal(0.5, 1, 6)
    more = difference(values).more_replicates(0.0)
    assert more is not None
    shift, spread = values.mean(), values.std(ddof=1)
    experiments = np.random.default_rng(3).normal(shift, spread, (2000, 6 + more))
    p = stats.ttest_1samp(experiments, 0.0, axis=1, alternative="greater").pvalue
    assert 0.85 < (p <= ALPHA).mean() < 0.97
    assert difference(values).more_replicates(float(values.mean())) is None  # no number would decide
    assert difference([0.1, 0.1, 0.1]).more_replicates(0.0) == 2  # until the exact test can reject


def test_p_better_in_any_keeps_its_error_rate_and_finds_either() -> None:
    generator = np.random.default_rng(4)
    accuracy, stop = generator.normal(size=(2, 1000, 7))
    stop = 0.7 * accuracy + 0.3 * stop  # correlated
    false = np.mean([p_better_in_any([a, s], ALPHA) <= ALPHA for a, s in zip(accuracy, stop, strict=True)])
    assert false < ALPHA + 3 * (ALPHA * (1 - ALPHA) / 1000) ** 0.5
    sure, nothing = np.array([1.0, 2, 3, 2, 1]), np.array([1.0, -1, 0.5, -0.5, 0.1])
    assert p_better_in_any([sure, nothing], ALPHA) == p_better_in_any([nothing, sure], ALPHA) == 1 / 32
    assert p_better_in_any([np.zeros(5), np.zeros(5)], ALPHA) == 1.0
    assert p_better_in_any([sure[:3], nothing[:3]], ALPHA) == pytest.approx(
        2 * stats.ttest_1samp(sure[:3], 0.0, alternative="greater").pvalue
    )


@settings(max_examples=30)
@given(VALUES)
def test_the_mirrored_test_is_that_of_the_negated_values_to_the_last_bit(values: list[float]) -> None:
    paired, negated = difference(values), difference([-value for value in values])
    typical, expected = paired._mirrored._typical_values, negated._typical_values
    assert np.array_equal(typical, expected, equal_nan=True)
    assert np.array_equal(np.signbit(typical), np.signbit(expected))
