"""The index of recipes is what the code says, and its estimates agree with experiments that were timed."""

from __future__ import annotations

import pytest

from tombola.experiments.recipe_index import recipe_keys, recipe_sizes
from tombola.experiments.recipe_index_contents import index_contents


def test_the_index_is_up_to_date() -> None:
    contents = index_contents()  # if not: python -m tombola.experiments.recipe_index_contents
    assert recipe_keys() == contents["keys"]
    assert {name: size._asdict() for name, size in recipe_sizes().items()} == contents["sizes"]


@pytest.mark.parametrize(
    ("name", "minutes"),
    [("digits", 1), ("lenet-mnist-small", 3.1), ("lenet-mnist", 159), ("conv2-cifar10-small", 18.6)],
)
def test_estimates_agree_with_measured_times(name: str, minutes: float) -> None:
    assert minutes / 2 < recipe_sizes()[name].seconds / 60 < 2 * minutes  # as docs/reproductions.md and README.md say
