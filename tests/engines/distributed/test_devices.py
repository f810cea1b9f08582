"""Every process of a job has a device of its own."""

from __future__ import annotations

import pytest

from tombola.engines.distributed.devices import gpu_problem


def test_a_gpu_for_each_process_is_no_problem() -> None:
    assert gpu_problem([("a", 2, "first"), ("a", 2, "second"), ("b", 1, "first")]) is None


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ([("a", 1, "first"), ("a", 1, "first")], "a has 1 for 2"),
        ([("a", 2, "first"), ("a", 2, "second"), ("a", 2, "first")], "a has 2 for 3"),
        ([("a", 1, "first"), ("b", 0, None)], "b has 0 for 1"),
    ],
)
def test_processes_that_share_a_gpu_or_have_none_are_a_problem(
    chosen: list[tuple[str, int, str | None]], said: str
) -> None:
    assert said in (gpu_problem(chosen) or "")
