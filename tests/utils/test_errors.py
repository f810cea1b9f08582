"""Errors in one line."""

from __future__ import annotations

from tombola.utils.errors import TrainingsFailed


def test_many_failures_are_one_short_line() -> None:
    error = TrainingsFailed([f"run {number}" for number in range(100)], 3)
    assert len(str(error)) < 200
    assert "100 trainings" in str(error)
    assert len(error.failed) == 100
