from __future__ import annotations

import pytest

from tombola.utils.text import first_line, one_line, plural, printable


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
