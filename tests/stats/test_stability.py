from __future__ import annotations

from typing import Any

import pytest

from tombola.report.figures.figure import Figure
from tombola.report.figures.stability_figures import along_lines, barriers_figure, walks_figure
from tombola.stats.stability import lines, rewound_to, stability


def walked(replicate: int, k: int, errors: list[float | None], pair: int = 0) -> list[dict[str, Any]]:
    """The rows of one line; on the test set errors are a tenth higher."""
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
    *walked(0, 0, [0.1, 0.5, 0.2]),
    *walked(0, 10, [0.1, 0.11, 0.1]),
    *walked(1, 0, [0.1, 0.4, 0.2]),
    *walked(1, 10, [0.1, 0.5, 0.1]),
    *walked(1, 20, [0.1, 0.1, 0.1], pair=0),
    *walked(1, 20, [0.1, 0.3, 0.1], pair=1),
]


WALKED = lines(POINTS, 3)


def test_barriers_are_means_over_lines_then_over_replicates() -> None:
    first, second, third = stability(WALKED, tolerance=0.02, confidence=0.95)
    assert [candidate["k"] for candidate in (first, second, third)] == [0, 10, 20]
    assert first["validation_barrier"]["values"] == pytest.approx([0.35, 0.25])
    assert first["test_barrier"]["mean"] == pytest.approx(0.30)
    assert first["validation_barrier"]["low"] == 0.0  # Student's t would go below
    assert (second["stable"], second["replicates"]) == (1, 2)
    assert third["validation_barrier"]["values"] == pytest.approx([0.1])
    assert third["validation_barrier"]["low"] is None


def test_each_replicate_is_rewound_to_its_first_stable_candidate_if_there_is_one() -> None:
    assert rewound_to(WALKED, tolerance=0.02) == [10, None]
    assert rewound_to(WALKED, tolerance=0.11) == [10, 20]
    assert rewound_to(WALKED, tolerance=0.3) == [10, 0]
    assert rewound_to([], tolerance=0.3) == []


def test_lines_that_are_not_whole_yet_are_left_out() -> None:
    assert lines(walked(0, 0, [0.1, 0.2]), 3) == []
    assert lines(walked(0, 0, [0.1, 0.2, 0.1])[::2], 3) == []  # both ends are trained first
    assert len(lines(walked(0, 0, [0.1, 0.2, 0.1]), 3)) == 1


def test_a_line_that_diverged_is_as_high_as_can_be() -> None:
    diverged = lines([*walked(0, 0, [None, 0.1]), *walked(0, 0, [0.1, 0.1, 0.1], pair=1)], 3)
    (found,) = stability(diverged, tolerance=0.9, confidence=0.95)
    assert found["validation_barrier"]["values"] == [1.0]
    assert found["stable"] == 0
    assert [row["lines"] for row in along_lines(diverged)] == [1, 1, 1]


def test_figures_show_means_along_the_lines_and_barriers() -> None:
    rows = along_lines(WALKED)
    assert [row["mean"] for row in rows if row["k"] == 0] == pytest.approx([20, 55, 30])
    assert {row["lines"] for row in rows if row["k"] == 20} == {2}
    assert isinstance(walks_figure(WALKED), Figure)
    found = barriers_figure({"tolerance": 0.02, "candidates": stability(WALKED, 0.02, 0.95)})
    assert isinstance(found, Figure)
    assert [(row["k"], row["examples"]) for row in found.rows][:2] == [(0, "validation"), (0, "test")]
    assert {row["tolerance"] for row in found.rows} == {2.0}
