from __future__ import annotations

import pytest

from tombola.utils.text import byte_size, first_line, one_line, plural, printable, rough_time


def test_the_first_line_of_an_error_without_a_message_is_its_class() -> None:
    assert first_line(ValueError("first\nsecond")) == "first"
    assert first_line(ValueError()) == "ValueError"


def test_one_line_is_short_and_has_no_control_characters() -> None:
    assert one_line(ValueError("a\n  b\tc\x1b[2J")) == "a b c?[2J"
    assert one_line(ValueError("x" * 1000)) == "x" * 200


def test_printable_keeps_letters_of_all_languages() -> None:
    assert printable("größe\n\x1b[31m\u202e") == "größe??[31m?"


@pytest.mark.parametrize(
    ("number", "text"),
    [(1, "1 point"), (2, "2 points"), (0.5, "0.5 points"), (1_234_567, "1,234,567 points"), (0, "0 points")],
)
def test_plural(number: float, text: str) -> None:
    assert plural(number, "point") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0123, "0.012 s"), (40, "40 s"), (59.7, "60 s"), (90, "1.5 min"), (5400, "1.5 h"), (360_000, "100 h")],
)
def test_a_rough_time_has_two_digits(seconds: float, text: str) -> None:
    assert rough_time(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0.0 kB"), (1500, "1.5 kB"), (12_000_000, "12.0 MB"), (1_250_000_000, "1.2 GB")]
)
def test_a_byte_size_has_a_decimal_unit(count: int, text: str) -> None:
    assert byte_size(count) == text
