from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tombola.stats.interval import mean_interval


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=20), st.floats(0.5, 0.999))
def test_it_is_students_t_interval(values: list[float], confidence: float) -> None:
    interval = mean_interval(values, confidence)
    assert interval.low is not None
    assert interval.high is not None
    error = stats.sem(values)
    if error == 0:
        assert interval.low == interval.mean == interval.high
    else:
        low, high = stats.t.interval(confidence, len(values) - 1, np.mean(values), error)
        assert interval.low == pytest.approx(low, abs=1e-9)
        assert interval.high == pytest.approx(high, abs=1e-9)


def test_one_value_has_no_interval() -> None:
    interval = mean_interval([0.5], 0.95)
    assert (interval.mean, interval.low, interval.high) == (0.5, None, None)


def test_no_values_have_no_mean() -> None:
    with pytest.raises(ValueError, match="no values"):
        mean_interval([], 0.95)
