from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.support.datasets import examples_in_memory
from tests.support.several_runs import Clock, TimedLearner
from tests.support.training import ENGINES, dense_run
from tombola.engines import Engine, training_loop
from tombola.engines.short_training import Measured, time_short_training
from tombola.engines.training_loop import Capacity, TrainingLoop, run_to_end
from tombola.runs.checkpoint import Checkpoint
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run

STEP = 1 / 128
"""Seconds of an iteration; sums of it are exact."""


class TimedEngine:
    """Its iterations take time by a clock of their own; the first ones, and the first evaluation, much more."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.compiled = False
        self.trained = 0

    def capacity(self, run: Run) -> Capacity:  # noqa: ARG002
        return Capacity()

    def train(self, runs: Sequence[Run], checkpoint: Checkpoint, load_state: object = None) -> list[Outcome]:  # noqa: ARG002
        clock, engine = self.clock, self

        class Learner(TimedLearner):
            def train(self, orders: Any, first: int) -> None:
                super().train(orders, first)
                engine.trained += orders.shape[1]
                if not engine.compiled and first == 0:
                    clock.now += 100.0

            def evaluate(self, *arguments: Any, **options: Any) -> Any:
                if not engine.compiled:
                    clock.now += 100.0
                    engine.compiled = True
                return super().evaluate(*arguments, **options)

        return run_to_end(
            TrainingLoop(runs, Learner(len(runs), clock, seconds=STEP), examples_in_memory(1000)), checkpoint, "timed"
        )


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> TimedEngine:
    clock = Clock()
    monkeypatch.setattr(training_loop, "time", clock)
    return TimedEngine(clock)


def test_a_training_is_stopped_when_its_speed_is_known(engine: TimedEngine) -> None:
    run = dense_run(training__length="10000it", training__evaluate_every="10000it")
    begin, end, seconds, finished = measured = time_short_training(engine, [run])
    assert not finished
    assert seconds == (end - begin) * STEP  # without what was compiled in the first iterations
    assert seconds >= 0.25
    assert engine.trained == end < 200
    assert measured.seconds_from_start == end * STEP


def test_what_evaluates_is_compiled_before(engine: TimedEngine) -> None:
    run = dense_run(training__length="10000it", training__evaluate_every="20it")
    begin, end, seconds, _ = time_short_training(engine, [run])
    assert begin == 20
    assert seconds == (end - begin) * STEP


def test_runs_of_a_stack_share_the_time(engine: TimedEngine) -> None:
    run = dense_run(training__length="10000it", training__evaluate_every="10000it")
    begin, end, seconds, _ = time_short_training(engine, [run, run.reinitialised(1)])
    assert seconds == (end - begin) * STEP / 2


def test_a_shorter_training_is_measured_as_a_whole_once_all_is_compiled(engine: TimedEngine) -> None:
    run = dense_run(training__length="16it", training__evaluate_every="8it")
    assert time_short_training(engine, [run]) == Measured(0, 16, 16 * STEP, finished=True)
    assert engine.trained == 32


@pytest.mark.parametrize("make", ENGINES)
def test_every_engine_can_be_measured(make: Callable[[], Engine[Run]]) -> None:
    measured = time_short_training(make(), [dense_run()])
    assert measured.seconds > 0
    assert 0 <= measured.begin < measured.end <= 60
