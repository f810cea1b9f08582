from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tombola.stats.paired import Paired, better_in_any, enough_for, subsets

ALPHA = 0.05
VALUES = st.lists(st.integers(-1000, 1000).map(lambda x: x / 64), min_size=5, max_size=9)


def difference(values: Sequence[float]) -> Paired:
    return Paired.difference(values, [0.0] * len(values), ALPHA)


def p_by_flipping(values: Sequence[float], value: float) -> float:
    """The sign-flip test as it is defined: how many of all sign patterns give at least the sum that there is."""
    centred = np.asarray(values) - value
    sums = [float(np.dot(signs, centred)) for signs in itertools.product((1, -1), repeat=len(values))]
    return float(np.mean(np.array(sums) >= centred.sum() - 1e-9))


@given(VALUES, st.integers(-20, 20))
def test_the_p_value_is_that_of_all_sign_flips(values: list[float], value: int) -> None:
    assert difference(values).p_above(value) == pytest.approx(p_by_flipping(values, value))
    assert difference(values).p_below(value) == pytest.approx(p_by_flipping([-v for v in values], -value))


def test_it_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).normal(0.4, 1, 9)
    found = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", alternative="greater", n_resamples=np.inf
    )
    assert difference(values).p_above(0) == pytest.approx(found.pvalue)


@given(VALUES)
def test_bounds_are_the_values_that_are_not_rejected(values: list[float]) -> None:
    paired = difference(values)
    low, high = paired.low, paired.high
    assert low is not None
    assert high is not None
    assert low <= paired.estimate <= high
    assert paired.p_above(low - 1e-6) <= ALPHA < paired.p_above(low + 1e-6)
    assert paired.p_below(high + 1e-6) <= ALPHA < paired.p_below(high - 1e-6)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=5, max_size=8))
def test_a_ratio_is_a_difference_to_so_many_times_the_other(pairs: list[tuple[int, int]]) -> None:
    of, to = zip(*pairs, strict=True)
    ratio = Paired.ratio(of, to, ALPHA)
    assert ratio.estimate == pytest.approx(sum(of) / sum(to))
    for times in (0.5, 1.0, 1.25):
        scaled = difference([a - times * b for a, b in pairs])
        assert ratio.p_below(times) == pytest.approx(scaled.p_below(0))
        assert ratio.p_above(times) == pytest.approx(scaled.p_above(0))
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.low <= ratio.estimate <= ratio.high


def test_with_too_few_replicates_for_that_it_is_students_t() -> None:
    assert [enough_for(alpha) for alpha in (0.05, 0.01, 0.5, 1 / 32)] == [5, 7, 1, 5]
    values = [0.3, 0.5, 0.1]
    paired = difference(values)
    assert not paired.exact
    assert paired.p_above(0.0) == pytest.approx(stats.ttest_1samp(values, 0.0, alternative="greater").pvalue)
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(1 - 2 * ALPHA)
    assert (paired.low, paired.high) == (pytest.approx(low), pytest.approx(high))
    of, to = [300.0, 310, 280, 305], [500.0, 480, 510, 520]
    ratio = Paired.ratio(of, to, ALPHA)
    assert ratio.high is not None
    at_the_bound = [a - ratio.high * b for a, b in zip(of, to, strict=True)]
    assert stats.ttest_1samp(at_the_bound, 0.0, alternative="less").pvalue == pytest.approx(ALPHA)


def test_one_replicate_has_no_bounds_and_proves_nothing() -> None:
    alone = difference([0.3])
    assert (alone.low, alone.high, alone.p_above(0.0)) == (None, None, 1.0)


def test_equal_differences_are_as_sure_as_their_number_allows() -> None:
    assert difference([0.1] * 5).p_above(0.0) == 1 / 32
    assert difference([0.0] * 5).p_above(0.0) == 1.0  # a tie is no evidence
    assert difference([0.1] * 5).low == pytest.approx(0.1)


def test_of_many_replicates_random_subsets_are_looked_at() -> None:
    values = np.random.default_rng(1).normal(0.25, 1, 40)
    paired = difference(values)
    assert len(subsets(40)) == 2**16 - 1
    assert paired.p_above(0.0) == pytest.approx(
        stats.ttest_1samp(values, 0.0, alternative="greater").pvalue, abs=0.01
    )
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(1 - 2 * ALPHA)
    assert (paired.low, paired.high) == (pytest.approx(low, abs=0.05), pytest.approx(high, abs=0.05))


def test_more_replicates_are_proposed_where_they_would_decide() -> None:
    values = np.random.default_rng(2).normal(0.5, 1, 6)
    more = difference(values).more(0.0)
    assert more is not None
    shift, spread = values.mean(), values.std(ddof=1)
    experiments = np.random.default_rng(3).normal(shift, spread, (2000, 6 + more))
    p = stats.ttest_1samp(experiments, 0.0, axis=1, alternative="greater").pvalue
    assert 0.85 < (p <= ALPHA).mean() < 0.97
    assert difference(values).more(float(values.mean())) is None  # it will never be clear
    assert difference([0.1, 0.1, 0.1]).more(0.0) == 2  # until the exact test can tell


def test_better_in_any_holds_its_error_and_finds_either() -> None:
    generator = np.random.default_rng(4)
    accuracy, stop = generator.normal(size=(2, 2000, 7))
    stop = 0.7 * accuracy + 0.3 * stop  # they have to do with each other
    false = np.mean([better_in_any([a, s], ALPHA) <= ALPHA for a, s in zip(accuracy, stop, strict=True)])
    assert false < ALPHA + 3 * (ALPHA * (1 - ALPHA) / 2000) ** 0.5
    sure, nothing = np.array([1.0, 2, 3, 2, 1]), np.array([1.0, -1, 0.5, -0.5, 0.1])
    assert better_in_any([sure, nothing], ALPHA) == better_in_any([nothing, sure], ALPHA) == 1 / 32
    assert better_in_any([np.zeros(5), np.zeros(5)], ALPHA) == 1.0
    assert better_in_any([sure[:3], nothing[:3]], ALPHA) == pytest.approx(
        2 * stats.ttest_1samp(sure[:3], 0.0, alternative="greater").pvalue
    )
