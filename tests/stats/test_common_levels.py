from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tests.support.recipes import tiny
from tests.support.verdict_rows import verdict_row
from tombola.experiments.results import Results
from tombola.experiments.results_schema import Tally
from tombola.stats.common_levels import common_levels
from tombola.stats.summarise import build_summary
from tombola.stats.summary import Summary


def experiment(weights: Mapping[int, int]) -> Summary:
    """With so many of 1,000 weights left at each level."""
    rows = [
        replace(verdict_row(0, level, 0.9, 100), weights=left, weights_total=1000) for level, left in weights.items()
    ]
    return build_summary(Results(tiny(replicates=1), rows, True, Tally()))


def found(*experiments: Summary) -> list[list[int]]:
    return [[level.level for level in group] for group in common_levels(experiments)]


def test_levels_with_about_as_many_weights_are_common() -> None:
    one, other = experiment({0: 1000, 1: 800, 2: 640, 3: 512}), experiment({0: 1000, 1: 500, 2: 250})
    assert found(one, other) == [[0, 0], [3, 1]]
    assert found(other, one) == [[0, 0], [1, 3]]
    assert found(one, one, other) == [[0, 0, 0], [3, 3, 1]]


def test_no_level_is_used_twice() -> None:
    fine, coarse = experiment({0: 1000, 1: 520, 2: 500, 3: 480}), experiment({0: 1000, 1: 500})
    assert found(fine, coarse) == [[0, 0], [1, 1]]


def test_a_sparse_network_is_never_like_a_dense_one() -> None:
    assert found(experiment({0: 1000, 1: 950}), experiment({0: 1000})) == [[0, 0]]


def test_without_levels_nothing_is_common() -> None:
    assert found() == found(experiment({}), experiment({0: 1000})) == []
