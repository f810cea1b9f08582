from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.recipes import tiny
from tests.support.report_data import layer_row
from tests.support.verdict_rows import diverged, verdict_row
from tombola.experiments.results import Results
from tombola.experiments.results_schema import Row, Tally
from tombola.stats.double_descent import double_descent
from tombola.stats.double_descent_summary import DoubleDescentSummary
from tombola.stats.summarise import summarise

ERRORS = (0.30, 0.33, 0.36, 0.15, 0.28)
"""Test error at the end of training, by level."""


def with_errors(replicate: int, level: int, generator: np.random.Generator) -> Row:
    """Tickets that fit their labels down to level 1, and have the same error at early stop at all levels."""
    row = verdict_row(replicate, level, 0.9, 100)
    error = ERRORS[level] + 0.003 * generator.normal()
    figures = {"test_accuracy": 1 - error, "train_accuracy": 1.0 if level < 2 else 0.8}
    return Row.from_dict(row.to_dict() | figures)


def results(replicates: int = 8, **changes: Any) -> Results:
    """An experiment with a bump, in which weights travel 5 x (1 + error) in two layers (3-4-5)."""
    generator = np.random.default_rng(0)
    rows = [with_errors(r, level, generator) for r in range(replicates) for level in range(len(ERRORS))]
    layers = [
        layer_row(row.replicate, row.level, name) | {"distance": length * (2 - (row.measures["test_accuracy"] or 0))}
        for row in rows
        for name, length in (("one", 3.0), ("two", 4.0))
    ]
    config = tiny(replicates=replicates, search__levels=len(ERRORS) - 1, **changes)
    return Results(config, rows, True, Tally(len(rows)), layers)


def found_in(given: Results) -> DoubleDescentSummary:
    found = double_descent(given)
    assert found is not None
    return found


def test_a_bump_and_the_rise_after_it_are_found() -> None:
    found = found_in(results(data__label_noise=0.4))
    assert (found.replicates, found.label_noise, found.interpolates_to) == (8, 0.4, 1)
    assert (found.end.bump, found.end.rises_again) == (True, True)
    assert (found.end.before, found.end.peak, found.end.after) == (0, 2, 3)
    heights = (found.end.rise, found.end.fall, found.end.final_rise)
    assert heights == pytest.approx((0.06, 0.21, 0.13), abs=0.01)
    assert (found.stop.bump, found.stop.peak) == (False, None)


def test_the_distance_is_that_of_all_layers() -> None:
    found = found_in(results(data__label_noise=0.4))
    for level in found.levels:
        assert level.distance == pytest.approx([5 * (1 + error) for error in level.test_error])
    assert found.distance is not None
    assert (found.distance.bump, found.distance.peak) == (True, 2)
    assert found.correlation == pytest.approx([1.0] * 8)


def test_it_is_said_if_labels_are_noisy_or_the_recipe_asks() -> None:
    assert double_descent(results()) is None
    assert double_descent(results(data__label_noise=0.4, analysis__double_descent=False)) is None
    assert found_in(results(analysis__double_descent=True)).label_noise == 0
    assert summarise(results())["double_descent"] is None
    assert summarise(results(analysis__double_descent=True))["double_descent"]["end"]["bump"] is True


def test_only_whole_replicates_that_are_no_copies_count() -> None:
    given = results(analysis__double_descent=True)
    given.rows[1] = diverged(given.rows[1])
    del given.rows[-1]
    given.copies.append(3)
    assert found_in(given).replicates == 5
    assert found_in(given).end.bump is None


def test_without_layers_the_distance_is_unknown() -> None:
    given = results(analysis__double_descent=True)
    given.layers.clear()
    found = found_in(given)
    assert (found.distance, found.correlation, found.levels[0].distance) == (None, [], [])


def test_two_levels_have_no_shape() -> None:
    given = results(analysis__double_descent=True)
    given.rows[:] = [row for row in given.rows if row.level < 2]
    assert double_descent(given) is None
