"""Holm's correction."""

from __future__ import annotations

import pytest

from tombola.stats.holm import holm


@pytest.mark.parametrize(
    ("given", "adjusted"),
    [
        ([], []),
        ([0.2], [0.2]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # the example of R's p.adjust, by hand
        ([0.5, 0.9], [1.0, 1.0]),
    ],
)
def test_p_values_are_multiplied_by_the_number_of_hypotheses_left(given: list[float], adjusted: list[float]) -> None:
    assert holm(given) == pytest.approx(adjusted)
