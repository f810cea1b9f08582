from __future__ import annotations

import pytest

from tests.support.errors import raises_input_error
from tombola.utils.ages import age_text, parse_age


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 30 * 86400), ("12h", 43200), ("90min", 5400), ("2w", 1209600), ("0.5 d", 43200)]
)
def test_ages_are_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_age("--older-than", text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "-3d", "30m", "3 days", "1e3d"])
def test_other_ages_are_refused(text: str) -> None:
    with raises_input_error("--older-than", "30d"):
        parse_age("--older-than", text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 min"), (59, "0 min"), (3599, "59 min"), (3600, "1 h"), (86399, "23 h"), (2e6, "23 d")],
)
def test_ages_are_shown_in_their_largest_unit(seconds: float, text: str) -> None:
    assert age_text(seconds) == text
