from __future__ import annotations

import pytest

from tombola.utils.duration import Duration


@pytest.mark.parametrize(("text", "iterations"), [("500it", 500), ("2ep", 20), ("1ep5it", 15), ("0it", 0)])
def test_a_duration_is_parsed_counted_and_written(text: str, iterations: int) -> None:
    assert Duration.parse(text).iterations_of(examples=600, batch_size=60) == iterations
    assert str(Duration.parse(text)) == text
    assert str(Duration.parse("0ep")) == "0it"


def test_a_partial_batch_counts_as_an_iteration() -> None:
    assert Duration(epochs=2).iterations_of(examples=601, batch_size=60) == 22


@pytest.mark.parametrize("text", ["", "500", "it", "5it1ep", "1.5ep", "-1it", "5 it", 500, None])
def test_other_forms_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match="length"):
        Duration.parse(text)
