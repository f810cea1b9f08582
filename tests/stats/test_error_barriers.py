from __future__ import annotations

from typing import Any

import pytest

from tombola.report.figures.barrier_figures import barriers_figure, interpolation_figure, mean_errors
from tombola.report.figures.figure import Figure
from tombola.stats.error_barriers import barrier_summaries, interpolation_paths, stable_rewind_points
from tombola.stats.summary import StabilitySummary


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


def test_barriers_are_means_over_paths_then_over_replicates() -> None:
    first, second, third = barrier_summaries(PATHS, tolerance=0.02, confidence=0.95)
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
    assert stable_rewind_points(PATHS, tolerance=0.02) == [10, None]
    assert stable_rewind_points(PATHS, tolerance=0.11) == [10, 20]
    assert stable_rewind_points(PATHS, tolerance=0.3) == [10, 0]
    assert stable_rewind_points([], tolerance=0.3) == []


def test_incomplete_paths_are_left_out() -> None:
    assert interpolation_paths(path_rows(0, 0, [0.1, 0.2]), 3) == []
    assert interpolation_paths(path_rows(0, 0, [0.1, 0.2, 0.1])[::2], 3) == []  # both ends are trained first
    assert len(interpolation_paths(path_rows(0, 0, [0.1, 0.2, 0.1]), 3)) == 1


def test_the_barrier_of_a_diverged_path_is_1() -> None:
    diverged = interpolation_paths([*path_rows(0, 0, [None, 0.1]), *path_rows(0, 0, [0.1, 0.1, 0.1], pair=1)], 3)
    (found,) = barrier_summaries(diverged, tolerance=0.9, confidence=0.95)
    assert found.validation_barrier.values == [1.0]
    assert found.stable == 0
    assert [row["lines"] for row in mean_errors(diverged)] == [1, 1, 1]


def test_figures_show_mean_errors_and_barriers() -> None:
    rows = mean_errors(PATHS)
    assert [row["mean"] for row in rows if row["k"] == 0] == pytest.approx([20, 55, 30])
    assert {row["lines"] for row in rows if row["k"] == 20} == {2}
    assert isinstance(interpolation_figure(PATHS), Figure)
    found = barriers_figure(
        StabilitySummary(tolerance=0.02, candidates=barrier_summaries(PATHS, 0.02, 0.95), rewound_to=None)
    )
    assert isinstance(found, Figure)
    assert [(row["k"], row["examples"]) for row in found.rows][:2] == [(0, "validation"), (0, "test")]
    assert {row["tolerance"] for row in found.rows} == {2.0}
