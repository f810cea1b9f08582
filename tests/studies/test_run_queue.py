"""The order in which queued runs are trained."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tests.support.custom_runs import custom_run
from tombola.engines.custom.engine import CustomRun
from tombola.studies.run_queue import RunQueue

RUN = custom_run()


class ShapedRun(CustomRun):
    """With a given shape."""

    @property
    def shape(self) -> tuple[object, ...]:
        return (self.seed,)


def shaped(shape: int) -> ShapedRun:
    return ShapedRun(start=RUN.start, mask=RUN.mask, seed=shape, procedure="p")


RUNS = [shaped(shape) for shape in range(4)]

adding = st.tuples(st.just("add"), st.integers(0, 3), st.integers(1, 5))
taking = st.tuples(st.just("take"), st.integers(1, 3), st.just(0))


@given(st.lists(st.one_of(adding, taking)))
def test_the_first_run_is_taken_with_the_next_ones_of_its_shape(operations: list[tuple[str, int, int]]) -> None:
    queue = RunQueue()
    waiting: list[tuple[int, int, int]] = []  # requests, arrival, shape
    for arrival, (operation, number, requests) in enumerate(operations):
        if operation == "add":
            queue.add(RUNS[number], str(arrival), requests)
            waiting.append((requests, arrival, number))
        elif waiting:
            shape = min(waiting)[2]
            alike = sorted(entry for entry in waiting if entry[2] == shape)
            assert queue.first is RUNS[shape]
            assert queue.alike == len(alike)
            expected = alike[:number]
            assert [queued.key for queued in queue.take(len(expected))] == [str(entry[1]) for entry in expected]
            waiting = [entry for entry in waiting if entry not in expected]
        assert bool(queue) == bool(waiting)


class Counted(int):
    """A number that counts comparisons."""

    comparisons = 0

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return int(self) == other

    def __lt__(self, other: int) -> bool:
        Counted.comparisons += 1
        return int(self) < int(other)

    __hash__ = int.__hash__


def test_with_a_shape_for_each_run_the_number_of_comparisons_is_not_quadratic() -> None:
    count, queue = 500, RunQueue()
    Counted.comparisons = 0
    for number in range(count):
        queue.add(shaped(number), str(number), Counted(7 * number % count))
    while queue:
        queue.take(1)
    assert count < Counted.comparisons < 20 * count * math.log2(count) < count**2
