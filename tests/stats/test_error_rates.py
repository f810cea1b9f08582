from __future__ import annotations

import pytest

from tests.stats.simulation import EXPERIMENTS, NULLS, STRONG, Case


def named(case: Case) -> str:
    return f"{case.what}-{case.replicates}"


@pytest.mark.slow
@pytest.mark.parametrize("case", NULLS, ids=named)
def test_a_false_winner_is_called_in_at_most_5_percent_of_experiments(case: Case) -> None:
    assert case.winning(EXPERIMENTS) < 0.05 + 3 * (0.05 * 0.95 / EXPERIMENTS) ** 0.5


@pytest.mark.parametrize("case", NULLS[::4], ids=named)
def test_false_winners_are_rare(case: Case) -> None:
    """The same in small, at every run of the tests."""
    assert case.winning(400) < 0.05 + 4 * (0.05 * 0.95 / 400) ** 0.5


def test_a_strong_ticket_is_called_winning_with_5_replicates() -> None:
    assert STRONG[1].replicates == 5
    assert STRONG[1].winning(100) > 0.9
