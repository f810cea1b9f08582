from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from tombola.report.formatting import density, density_columns, of_all_weights, percent


@dataclass(frozen=True)
class Level:
    """A level, as far as densities are shown."""

    weights_left: float
    weights_left_of_all: float | None = None


LEVEL = Level(0.129)


@pytest.mark.parametrize(("fraction", "text"), [(0.5122, "51.2%"), (1.0, "100%"), (12.0, "12 times")])
def test_percentages_have_three_digits(fraction: float, text: str) -> None:
    assert percent(fraction) == text


@pytest.mark.parametrize(
    ("of_all", "cell", "words"),
    [
        (None, "12.9%", ""),
        (0.129, "12.9%", ""),
        (0.45, "12.9% (45% of all)", ", 45% of all matrix weights"),
    ],
)
def test_the_weights_left_of_all_are_said_where_they_differ(of_all: float | None, cell: str, words: str) -> None:
    level = replace(LEVEL, weights_left_of_all=of_all)
    assert density(level) == cell
    assert of_all_weights(level) == words
    columns = density_columns([Level(1.0, 1.0), level])
    assert list(columns) == (["left", "of all"] if words else ["left"])
    assert columns["left"](level) == "12.9%"
