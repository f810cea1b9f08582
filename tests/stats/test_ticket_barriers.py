from __future__ import annotations

from typing import Any

import pytest

from tests.support.ticket_lines import line_rows
from tombola.stats.error_barriers import BarrierCriteria, interpolation_paths
from tombola.stats.ticket_barriers import ticket_barriers

CRITERIA = BarrierCriteria(tolerance=0.02, confidence=0.95)


def barriers(rows: list[dict[str, Any]]) -> dict[tuple[int, str], list[float]]:
    """The barriers on validation examples of each replicate, by level and kind of lines."""
    return {
        (ticket.level, line): found.validation_barrier.values
        for ticket in ticket_barriers(rows, 3, CRITERIA)
        for line, found in (("predecessor", ticket.predecessor), ("order", ticket.order))
        if found
    }


def test_barriers_are_by_level_and_kind_of_line() -> None:
    rows = [
        *line_rows("order", 0, [0.1, 0.4, 0.1]),
        *line_rows("predecessor", 1, [0.1, 0.3, 0.2]),
        *line_rows("order", 1, [0.1, 0.1, 0.1]),
        *line_rows("predecessor", 1, [0.1, 0.2, 0.1], replicate=1),
        *line_rows("order", 1, [0.1, 0.3, 0.1], pair=1),  # the mean over pairs
    ]
    assert barriers(rows) == {
        (0, "order"): pytest.approx([0.3]),
        (1, "predecessor"): pytest.approx([0.15, 0.1]),
        (1, "order"): pytest.approx([0.1]),
    }


def test_replicates_that_were_rewound_to_different_iterations_are_compared() -> None:
    rows = [*line_rows("order", 1, [0.1, 0.2, 0.1], k=10), *line_rows("order", 1, [0.1, 0.1, 0.1], replicate=1, k=20)]
    assert barriers(rows) == {(1, "order"): pytest.approx([0.1, 0.0])}
    (found,) = ticket_barriers(rows, 3, CRITERIA)
    assert found.order
    assert (found.order.stable, found.order.replicates) == (1, 2)


def test_a_diverged_ticket_has_a_barrier_of_1_and_unfinished_lines_none() -> None:
    rows = [*line_rows("predecessor", 1, [None, 0.1]), *line_rows("predecessor", 2, [0.1, 0.1])]
    assert barriers(rows) == {(1, "predecessor"): [1.0]}


def test_lines_of_tickets_are_not_candidates_for_rewinding() -> None:
    rows = line_rows("order", 0, [0.1, 0.4, 0.1])
    candidates = [{name: value for name, value in row.items() if name not in ("line", "level")} for row in rows]
    assert interpolation_paths(rows, 3) == []
    assert len(interpolation_paths(candidates, 3)) == 1
    assert ticket_barriers(candidates, 3, CRITERIA) == []
