from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.support.custom_runs import custom_run
from tests.support.outcomes import outcome_of
from tests.support.recipes import tiny
from tests.support.several_runs import Clock
from tombola.engines.eager import Eager
from tombola.experiments.planning import time_left as module
from tombola.experiments.planning.expected_runs import expected_runs
from tombola.experiments.planning.run_costs import HANDLING, Load, RunCosts
from tombola.experiments.planning.time_left import TimeLeft
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.studies.rehearsal import Rehearsed
from tombola.studies.request import RunRequest


def requests(**changes: Any) -> Iterator[tuple[int, Rehearsed]]:
    return expected_runs(RecipeExperiment(tiny(**changes)))


def answer(
    left: TimeLeft, study: int, request: RunRequest, seconds: float, trained: bool = True, diverged: bool = False
) -> None:
    left.answered(study, request, replace(outcome_of(request.run, diverged=diverged), seconds=seconds), trained)


def low_and_high(left: TimeLeft, workers: int = 1) -> tuple[float, float]:
    found = left.seconds(workers)
    assert found is not None
    return found


def test_sparse_trainings_may_be_faster_than_the_dense_one() -> None:
    expected = list(requests(replicates=1, search__levels=1, search__rate=0.5, search__output_rate=0.5, controls={}))
    left = TimeLeft(expected)
    assert left.seconds(1) is None
    answer(left, 0, expected[0][1].request, seconds=8.0)
    assert low_and_high(left) == pytest.approx((4 + HANDLING, 8 + HANDLING))


def test_it_follows_what_each_level_took() -> None:
    expected = list(requests(replicates=2, controls={}))
    left = TimeLeft(expected)
    for (study, each), seconds in zip(expected[:4], (8, 4, 2, 1), strict=True):  # the first replicate
        answer(left, study, each.request, seconds)
    assert low_and_high(left) == pytest.approx((15 + 4 * HANDLING,) * 2)
    assert low_and_high(left, workers=4) == low_and_high(left)  # each level waits for the one before
    for study, each in expected[4:]:
        answer(left, study, each.request, seconds=1)
    assert low_and_high(left) == (0, 0)


def test_controls_train_side_by_side() -> None:
    expected = list(requests(replicates=1, search__levels=1, controls={"reinit": 8}))
    left = TimeLeft(expected)
    for study, each in expected[:2]:
        answer(left, study, each.request, seconds=4)
    assert low_and_high(left, workers=1) == pytest.approx((8 * (4 + HANDLING),) * 2)
    assert low_and_high(left, workers=4) == pytest.approx((2 * (4 + HANDLING),) * 2)


def test_what_was_stored_counts_only_until_something_is_trained() -> None:
    expected = list(requests(replicates=3, search__levels=0, controls={}))
    left = TimeLeft(expected)
    answer(left, 0, expected[0][1].request, seconds=5, trained=False)
    assert low_and_high(left) == pytest.approx((2 * (5 + HANDLING),) * 2)
    answer(left, 1, expected[1][1].request, seconds=3, trained=False)
    assert low_and_high(left) == pytest.approx((5 + HANDLING,) * 2)


def test_a_training_that_diverged_says_nothing_of_others() -> None:
    expected = list(requests(replicates=2, search__levels=0, controls={}))
    left = TimeLeft(expected)
    answer(left, 0, expected[0][1].request, seconds=0.1, diverged=True)
    assert left.seconds(1) is None


def test_an_unexpected_request_changes_nothing_but_the_costs() -> None:
    expected = list(requests(replicates=1, search__levels=0, controls={}))
    left = TimeLeft(expected)
    answer(left, 7, expected[0][1].request, seconds=5)
    assert low_and_high(left) == pytest.approx((5 + HANDLING,) * 2)


@pytest.mark.parametrize("worth", [0.0, 1e9])
def test_only_a_long_experiment_is_worth_a_trial_of_sparse_networks(
    worth: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[set[float]] = []

    def measure(costs: RunCosts, examples: dict[Load, Any], *_: object) -> None:
        tried.append({load.density for load in examples})
        for load in examples:
            costs.add(load, 1.0)

    monkeypatch.setattr(module, "measure", measure)
    monkeypatch.setattr(module, "WORTH_A_TRIAL", worth)
    left = TimeLeft(requests())
    left.measure(Eager())
    assert tried[0] == {1.0}
    assert len(tried) == (2 if worth == 0 else 1)
    assert left.seconds(1) is not None


def replay(seconds: list[float], clock: Clock, overhead: float = 0.0, warm_up: int = 1) -> list[float | None]:
    """Estimates after each training of one worker, as ratios to the true time left."""
    expected = list(requests(replicates=len(seconds), search__levels=0, controls={}))
    left = TimeLeft(expected, warm_up=warm_up, clock=lambda: clock.now)
    ratios: list[float | None] = []
    for done, ((study, each), took) in enumerate(zip(expected, seconds, strict=True), 1):
        clock.now += took + overhead
        answer(left, study, each.request, took)
        estimate, true = left.likely_seconds(1), sum(seconds[done:]) + overhead * (len(seconds) - done)
        ratios.append(None if estimate is None or not true else estimate / true)
    return ratios


def test_the_first_training_of_a_worker_says_little_of_the_others() -> None:
    ratios = replay([7.0, *[1.0] * 19], Clock())
    assert ratios[0] is None
    assert all(ratio == pytest.approx(1, abs=0.1) for ratio in ratios[1:-1])


def test_a_long_training_is_a_basis_at_once() -> None:
    assert replay([600.0] * 4, Clock())[0] == pytest.approx(1, abs=0.1)


def test_estimates_follow_the_clock_where_trainings_take_longer_than_they_say() -> None:
    ratios = replay([1.0] * 40, Clock(), overhead=1.0)
    assert ratios[1] is not None
    assert ratios[1] < 0.75
    assert ratios[20] == pytest.approx(1, abs=0.15)


def test_the_users_functions_cost_the_same_at_every_density() -> None:
    kinds = [Load.of(custom_run(density=density)) for density in (1.0, 0.1)]
    assert kinds[0] == kinds[1]
