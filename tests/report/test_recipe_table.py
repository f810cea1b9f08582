"""The table of recipes."""

from __future__ import annotations

import pytest

from tombola.experiments.recipe_files import recipes
from tombola.experiments.recipe_index import recipe_sizes
from tombola.report.recipe_table import families, recipe_lines, rough_duration


def test_every_recipe_is_in_one_family_and_its_ending_in_the_table() -> None:
    found = families(recipes())
    assert sorted([*found, *(name for variants in found.values() for name in variants)]) == sorted(recipes())
    text = " ".join(" ".join(recipe_lines(recipe_sizes())).replace(",", " ").split())
    for base, variants in found.items():
        assert f"{base} " in text
        assert all(f" {name.removeprefix(base)} " in text for name in variants)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(5, "1 min"), (1234, "20 min"), (3599, "60 min"), (3600, "1 h"), (200 * 86400, "200 days"), (1e9, "30 years")],
)
def test_durations_have_one_digit(seconds: float, shown: str) -> None:
    assert rough_duration(seconds) == shown
