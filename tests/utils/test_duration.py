from __future__ import annotations

import pytest

from tombola.utils.duration import Duration


@pytest.mark.parametrize(
    ("text", "iterations"), [("500it", 500), ("2ep", 20), ("1ep5it", 15), ("0it", 0), ("0ep", 0)]
)
def test_a_length_is_read_and_counted(text: str, iterations: int) -> None:
    assert Duration.parse(text).iterations_of(examples=600, batch_size=60) == iterations


def test_an_epoch_that_does_not_divide_is_rounded_up() -> None:
    assert Duration(epochs=2).iterations_of(examples=601, batch_size=60) == 22


@pytest.mark.parametrize("text", ["", "500", "it", "5it1ep", "1.5ep", "-1it", "5 it", 500, None])
def test_anything_else_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="length"):
        Duration.parse(text)


@pytest.mark.parametrize("text", ["500it", "2ep", "1ep5it", "0it"])
def test_it_is_written_as_it_is_read(text: str) -> None:
    assert str(Duration.parse(text)) == text
