from __future__ import annotations

import math
from typing import Any

import pytest

from tests.support.recipes import tiny
from tombola.experiments.metric import Metric
from tombola.experiments.results import Results
from tombola.experiments.results_schema import Tally
from tombola.report.barrier_units import barrier_units
from tombola.report.figures.barrier_figures import barriers_figure, interpolation_figure, mean_errors
from tombola.report.figures.figure import Figure
from tombola.stats.error_barriers import (
    BarrierCriteria,
    barrier_summaries,
    interpolation_paths,
    stable_rewind_points,
)
from tombola.stats.summarise import build_summary
from tombola.stats.summary import NOT_MEASURED, StabilitySummary


def path_rows(replicate: int, k: int, errors: list[float | None], pair: int = 0) -> list[dict[str, Any]]:
    """The rows of one path; on the test set errors are 0.1 higher."""
    shares = [0.0, 0.5, 1.0]
    return [
        {
            "replicate": replicate,
            "k": k,
            "pair": pair,
            "share": share,
            "train_accuracy": None if error is None else 1 - error,
            "validation_accuracy": None if error is None else 1 - error,
            "test_accuracy": None if error is None else 0.9 - error,
        }
        for share, error in zip(shares, errors, strict=False)
    ]


POINTS = [
    *path_rows(0, 0, [0.1, 0.5, 0.2]),
    *path_rows(0, 10, [0.1, 0.11, 0.1]),
    *path_rows(1, 0, [0.1, 0.4, 0.2]),
    *path_rows(1, 10, [0.1, 0.5, 0.1]),
    *path_rows(1, 20, [0.1, 0.1, 0.1], pair=0),
    *path_rows(1, 20, [0.1, 0.3, 0.1], pair=1),
]


PATHS = interpolation_paths(POINTS, 3)
CRITERIA = BarrierCriteria(tolerance=0.02, confidence=0.95)


def test_barriers_are_means_over_paths_then_over_replicates() -> None:
    first, second, third = barrier_summaries(PATHS, CRITERIA)
    assert first.validation_barrier.interval
    assert first.test_barrier.interval
    assert third.validation_barrier.interval
    assert [candidate.k for candidate in (first, second, third)] == [0, 10, 20]
    assert first.validation_barrier.values == pytest.approx([0.35, 0.25])
    assert first.test_barrier.interval.mean == pytest.approx(0.30)
    assert first.validation_barrier.interval.low == 0.0  # Student's t gives less
    assert (second.stable, second.replicates) == (1, 2)
    assert third.validation_barrier.values == pytest.approx([0.1])
    assert third.validation_barrier.interval.low is None


def test_each_replicate_is_rewound_to_its_first_stable_candidate() -> None:
    assert stable_rewind_points(PATHS, CRITERIA) == [10, None]
    assert stable_rewind_points(PATHS, BarrierCriteria(0.11, 0.95)) == [10, 20]
    assert stable_rewind_points(PATHS, BarrierCriteria(0.3, 0.95)) == [10, 0]
    assert stable_rewind_points([], CRITERIA) == []


def test_incomplete_paths_are_left_out() -> None:
    assert interpolation_paths(path_rows(0, 0, [0.1, 0.2]), 3) == []
    assert interpolation_paths(path_rows(0, 0, [0.1, 0.2, 0.1])[::2], 3) == []  # both ends are trained first
    assert len(interpolation_paths(path_rows(0, 0, [0.1, 0.2, 0.1]), 3)) == 1


def test_the_barrier_of_a_diverged_path_is_1() -> None:
    diverged = interpolation_paths([*path_rows(0, 0, [None, 0.1]), *path_rows(0, 0, [0.1, 0.1, 0.1], pair=1)], 3)
    (found,) = barrier_summaries(diverged, BarrierCriteria(0.9, 0.95))
    assert found.validation_barrier.values == [1.0]
    assert found.stable == 0
    assert [row["lines"] for row in mean_errors(diverged, 100)] == [1, 1, 1]


def test_figures_show_mean_errors_and_barriers() -> None:
    rows = mean_errors(PATHS, 100)
    assert [row["mean"] for row in rows if row["k"] == 0] == pytest.approx([20, 55, 30])
    assert {row["lines"] for row in rows if row["k"] == 20} == {2}
    stability = StabilitySummary(tolerance=0.02, candidates=barrier_summaries(PATHS, CRITERIA), rewound_to=None)
    units = barrier_units(build_summary(Results(tiny(), [], True, Tally())), stability)
    assert isinstance(interpolation_figure(PATHS, units), Figure)
    found = barriers_figure(stability, units)
    assert isinstance(found, Figure)
    assert [(row["k"], row["examples"]) for row in found.rows][:2] == [(0, "validation"), (0, "test")]
    assert {row["tolerance"] for row in found.rows} == {2.0}


def own_rows(
    replicate: int, values: list[float | None], test: list[float | None] | None = None
) -> list[dict[str, Any]]:
    """The rows of one path of the figure `f1`."""
    rows: list[dict[str, Any]] = [
        {"replicate": replicate, "k": 0, "pair": 0, "share": share, "validation_f1": value}
        for share, value in zip([0.0, 0.5, 1.0], values, strict=True)
    ]
    return [row | ({"test_f1": test[index]} if test else {}) for index, row in enumerate(rows)]


@pytest.mark.parametrize(("maximize", "barrier"), [(True, 0.4), (False, 0.1)])
def test_a_barrier_is_how_much_worse_the_worst_is_than_the_mean_of_the_ends(maximize: bool, barrier: float) -> None:
    metric = Metric("f1", "validation", maximize)
    paths = interpolation_paths(own_rows(0, [0.8, 0.3, 0.6]), 3, metric=metric)
    (found,) = barrier_summaries(paths, BarrierCriteria(0.39, 0.95, math.inf))
    assert found.validation_barrier.values == pytest.approx([barrier])
    assert found.stable == (not maximize)
    assert found.train_barrier == found.test_barrier == NOT_MEASURED


def test_barriers_of_figures_without_a_bound_have_no_value_where_these_are_not_finite() -> None:
    metric, criteria = Metric("f1", "validation"), BarrierCriteria(0.1, 0.95, math.inf)
    rows = [
        *own_rows(0, [0.8, 0.8, 0.8], [0.8, None, 0.8]),
        *own_rows(1, [0.8, None, 0.8], [0.8, 0.7, 0.6]),
    ]
    paths = interpolation_paths(rows, 3, metric=metric)
    (found,) = barrier_summaries(paths, criteria)
    assert found.validation_barrier.values == [0.0]
    assert found.test_barrier.values == pytest.approx([0.1])
    assert (found.stable, found.replicates) == (1, 2)
    assert stable_rewind_points(paths, criteria) == [0, None]
    assert [row["mean"] for row in mean_errors(paths, -1, "validation")] == [0.8, 0.8, 0.8]


def test_accuracies_and_other_figures_have_their_own_units() -> None:
    summary = build_summary(Results(tiny(), [], True, Tally()))
    points = barrier_units(summary, StabilitySummary(tolerance=0.02, candidates=[], rewound_to=None))
    f1 = Metric("F1", "validation")
    plain = barrier_units(summary, StabilitySummary(metric=f1, tolerance=0.02, candidates=[], rewound_to=None))
    assert (points.title, points.label, points.tolerance) == ("Error barrier", "error barrier (points)", "2 points")
    assert (plain.title, plain.label, plain.tolerance) == ("F1 barrier", "F1 barrier", "0.02")
    assert (points.factor, points.along_factor) == (100, 100)
    assert (plain.factor, plain.along_factor) == (1, -1)  # errors are negative values
