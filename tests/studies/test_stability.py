from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.support.outcomes import outcome_of
from tests.support.recipes import tiny
from tests.support.studies import drive
from tombola.experiments.experiment import count_runs
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.request import InterpolationPoint, RunRequest, Study
from tombola.studies.stability import InterpolationPlan, all_candidates, barrier, instability, smallest_stable
from tombola.zoo.models.description import Trained


def errors(line: Sequence[Outcome]) -> list[float]:
    return [1 - float(outcome.curves["validation_accuracy"][-1]) for outcome in line]


PLAN = InterpolationPlan([0, 10, 20], seeds=[7, 8], points=5, tolerance=0.02, errors=errors, worst=1.0)


def drive_errors(study: Study[Any], error: Callable[[RunRequest], float]) -> tuple[list[RunRequest], Any]:
    """Drive a study with outcomes of this final validation error; 1 means divergence."""
    yielded, result = drive(study, outcome=lambda request: ended_with(request, error(request)))
    return [request for requests in yielded for request in requests], result


def ended_with(request: RunRequest, error: float) -> Outcome:
    outcome = outcome_of(request.run, diverged=error == 1, iterations=request.run.last)
    outcome.curves["validation_accuracy"][-1] = 1 - error
    return outcome


def hill(request: RunRequest) -> float:
    """10% and 20% error at the ends; half way, less for larger k."""
    if request.point is None:
        return 0.0
    heights = {0: 0.4, 10: 0.17, 20: 0.1}
    return {0.0: 0.1, 1.0: 0.2}.get(
        request.point.share, heights[request.point.k] if request.point.share == 0.5 else 0.1
    )


def test_a_barrier_is_the_highest_error_above_the_mean_of_the_ends() -> None:
    assert barrier([0.1, 0.5, 0.2]) == pytest.approx(0.35)
    assert barrier([0.1, 0.1, 0.2]) == pytest.approx(0.05)  # the ends are part of the line
    assert barrier([0.2, 0.1, 0.2]) == 0


def test_lines_join_the_dense_network_and_trainings_of_other_batch_orders(dense: Run) -> None:
    requests, height = drive_errors(instability(dense, 20, PLAN), hill)
    trunk, *lines = requests
    assert trunk == RunRequest("trunk", 0, dense.until(20))
    assert {request.point for request in lines} == {
        InterpolationPoint(20, share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    }
    assert len(lines) == 2 * 5
    one = dense.after(dense.until(20), begin=20)
    for request in lines:
        assert request.point is not None
        other = one.model_copy(update={"seed": PLAN.seeds[request.draw]})
        if request.point.share in (0.0, 1.0):
            assert request.run == (one if request.point.share == 0 else other)
        else:
            assert request.run.start.trained == Trained(run=one.key, towards=other.key, share=request.point.share)
            assert request.run.begin == request.run.last == 60  # nothing is trained
    assert height == pytest.approx(0.05)


def test_the_smallest_stable_candidate_is_chosen_and_no_later_one_is_trained(dense: Run) -> None:
    requests, k = drive_errors(smallest_stable(dense, PLAN), hill)
    assert k == 20  # the last: even there the barrier is 5 points
    for tolerance, smallest in ((0.051, 10), (0.3, 0)):
        requests, k = drive_errors(smallest_stable(dense, replace(PLAN, seeds=[7], tolerance=tolerance)), hill)
        assert k == smallest
        assert max(request.point.k for request in requests if request.point) == smallest


def test_a_diverged_training_is_not_stable(dense: Run) -> None:
    assert drive_errors(instability(dense, 0, PLAN), lambda _: 1.0)[1] == 1.0
    one_end = drive_errors(
        instability(dense, 0, PLAN),
        lambda request: float(request.draw == 1 and request.point == InterpolationPoint(0, 1.0)),
    )
    assert one_end[1] == 1.0


def test_all_candidates_can_be_evaluated(dense: Run) -> None:
    requests, _ = drive_errors(all_candidates(dense, PLAN), hill)
    assert {request.point.k for request in requests if request.point} == {0, 10, 20}
    assert [request.run.last for request in requests if request.branch == "trunk"] == [10, 20]


STABILITY = {"candidates": ["0it", "20it", "1ep"], "pairs": 2, "points": 4}


def test_a_search_rewinds_to_the_smallest_stable_iteration() -> None:
    recipe = tiny(rewind={"to": "auto"}, stability=STABILITY | {"tolerance": 0.2})
    requests, _ = drive_errors(
        RecipeExperiment(recipe).study(0),
        lambda request: 0.9 * bool(request.point and request.point.k == 0 and 0 < request.point.share < 1),
    )
    assert [request.run.begin for request in requests if request.branch == "ticket"] == [20] * 4
    assert {request.point.k for request in requests if request.point} == {0, 20}
    # the dense network's run is one end of the lines: it is trained once
    runs = {request.run for request in requests}
    assert sum(run.end is None and run.mask.density == 1 for run in runs) == 2 + 4


def test_no_more_runs_are_requested_than_counted() -> None:
    recipe = tiny(rewind={"to": "20it"}, stability=STABILITY)
    requests, _ = drive_errors(RecipeExperiment(recipe).study(0), lambda _: 0.1)
    assert len(set(requests)) * recipe.replicates == count_runs(recipe)
    assert [request for request in requests if request.branch == "stability"] == [a for a in requests if a.point]
    assert sorted({request.run.last for request in requests if request.branch == "trunk"}) == [20, 25]
