"""The tests of the margins with their bounds: these say the same as the p-values that the verdict uses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.verdict_rows import verdict_row
from tombola.experiments.margin import Margin
from tombola.experiments.metric import ACCURACY
from tombola.stats.margin_tests import metric_margin_test, stop_margin_test
from tombola.stats.paired_comparison import PairedComparison, compare_branches
from tombola.stats.paired_test import PairedTest

ALPHA = 0.05
FIGURES = st.tuples(st.integers(80, 99), st.integers(80, 99), st.integers(1, 12), st.integers(1, 12))
"""Accuracies in points and early stops in hundreds of iterations, of a ticket and the dense network: few values, so
that differences are often exactly the margin."""
MARGINS = st.builds(Margin, st.sampled_from([0.0, 0.01, 0.02, 0.05]), st.booleans())


def compared(pairs: list[tuple[int, int, int, int]], maximize: bool = True) -> PairedComparison:
    metric = replace(ACCURACY, maximize=maximize)
    tickets = {r: [verdict_row(r, 1, one / 100, 100 * stop)] for r, (one, _, stop, _) in enumerate(pairs)}
    dense = {r: [verdict_row(r, 0, other / 100, 100 * stop)] for r, (_, other, _, stop) in enumerate(pairs)}
    found = compare_branches(tickets, dense, ALPHA, metric)
    assert found is not None
    return found


@settings(max_examples=150, deadline=None)
@given(st.lists(FIGURES, min_size=2, max_size=9), MARGINS, st.booleans())
def test_the_bound_is_better_than_the_margin_exactly_if_p_is_small_enough(
    pairs: list[tuple[int, int, int, int]], margin: Margin, maximize: bool
) -> None:
    comparison, metric = compared(pairs, maximize), replace(ACCURACY, maximize=maximize)
    tested, worst = comparison.worse_by(margin)
    found = metric_margin_test(comparison, metric, margin)
    if found.bound is not None or not found.relative:
        assert found.holds == (tested.p_above(worst) <= ALPHA)
    assert found.limit == pytest.approx(-metric.sign * margin.value)
    assert found.relative == margin.relative
    stop = stop_margin_test(comparison, margin.value)
    assert stop is not None
    assert comparison.stop is not None
    if stop.bound is not None:
        assert stop.holds == (comparison.stop.p_below(1 + margin.value) <= ALPHA)


@pytest.mark.parametrize("relative", [False, True])
def test_many_replicates_and_the_sign_of_the_metric(relative: bool) -> None:
    drawn = np.random.default_rng(0).integers(85, 99, size=(40, 2))
    pairs = [(int(a), int(b), 1, 2) for a, b in drawn]
    higher, lower = compared(pairs), compared(pairs, maximize=False)
    up = metric_margin_test(higher, ACCURACY, Margin(0.01, relative))
    down = metric_margin_test(lower, replace(ACCURACY, maximize=False), Margin(0.01, relative))
    assert (up.mean, up.low, up.high) == pytest.approx((down.mean, down.low, down.high))
    assert (up.bound, down.bound, up.limit) == (up.low, down.high, -down.limit)
    stop = stop_margin_test(higher, 0.05)
    assert stop is not None
    assert stop.holds
    assert (stop.mean, stop.low, stop.high, stop.limit) == pytest.approx((-0.5, -0.5, -0.5, 0.05))


def test_bounds_that_only_rounding_tells_from_a_value_are_that_value() -> None:
    tied = PairedTest.difference([0.95] * 6, [0.96] * 6, ALPHA)
    assert tied.low != -0.01
    assert tied.bounds(-0.01) == (-0.01, -0.01)
    assert tied.bounds(-0.02) == (tied.low, tied.high)


def test_without_early_stop_there_is_no_test_of_it() -> None:
    comparison = replace(compared([(90, 91, 1, 1)] * 5), stop=None)
    assert stop_margin_test(comparison, 0.05) is None
