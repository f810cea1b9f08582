from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.conftest import outcome_of, tiny
from tests.studies.test_search import answer
from tombola.experiments.experiment import Experiment, expected_runs
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.request import Point, RunRequest, Study
from tombola.studies.stability import InterpolationPlan, all_candidates, barrier, instability, smallest_stable
from tombola.zoo.models.description import Trained

WALKS = InterpolationPlan(candidates=[0, 10, 20], seeds=[7, 8], points=5, tolerance=0.02)


def drive(study: Study[Any], error: Callable[[RunRequest], float]) -> tuple[list[RunRequest], Any]:
    """Drive a study with outcomes that have this error on the validation examples at the end."""
    asked, result = answer(study, outcome=lambda ask: ended_with(ask, error(ask)))
    return [ask for question in asked for ask in question], result


def ended_with(ask: RunRequest, error: float) -> Outcome:
    outcome = outcome_of(ask.run, diverged=error == 1)
    outcome.curves["validation_accuracy"][-1] = 1 - error
    return outcome


def hill(ask: RunRequest) -> float:
    """Ends at 10% and 20% error; half way as high as k is small."""
    if ask.point is None:
        return 0.0
    heights = {0: 0.4, 10: 0.17, 20: 0.1}
    return {0.0: 0.1, 1.0: 0.2}.get(ask.point.share, heights[ask.point.k] if ask.point.share == 0.5 else 0.1)


def test_a_barrier_is_what_lies_above_the_mean_of_the_ends() -> None:
    assert barrier([0.1, 0.5, 0.2]) == pytest.approx(0.35)
    assert barrier([0.1, 0.1, 0.2]) == pytest.approx(0.05)  # the ends are part of the line
    assert barrier([0.2, 0.1, 0.2]) == 0


def test_lines_go_from_the_dense_networks_end_to_those_of_other_batch_orders(dense: Run) -> None:
    asked, height = drive(instability(dense, 20, WALKS), hill)
    trunk, *lines = asked
    assert trunk == RunRequest("trunk", 0, dense.until(20))
    assert {ask.point for ask in lines} == {Point(20, share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)}
    assert len(lines) == 2 * 5
    one = dense.after(dense.until(20), begin=20)
    for ask in lines:
        assert ask.point is not None
        other = one.model_copy(update={"seed": WALKS.seeds[ask.draw]})
        if ask.point.share in (0.0, 1.0):
            assert ask.run == (one if ask.point.share == 0 else other)
        else:
            assert ask.run.start.trained == Trained(run=one.key, towards=other.key, share=ask.point.share)
            assert ask.run.begin == ask.run.last == 60  # nothing is trained
    assert height == pytest.approx(0.05)


def test_the_smallest_stable_candidate_is_taken_and_no_more_are_tried(dense: Run) -> None:
    asked, k = drive(smallest_stable(dense, WALKS), hill)
    assert k == 20  # the last: even there the barrier is 5 points
    for tolerance, smallest in ((0.051, 10), (0.3, 0)):
        asked, k = drive(smallest_stable(dense, InterpolationPlan([0, 10, 20], [7], 5, tolerance)), hill)
        assert k == smallest
        assert max(ask.point.k for ask in asked if ask.point) == smallest


def test_a_training_that_diverged_is_not_stable(dense: Run) -> None:
    assert drive(instability(dense, 0, WALKS), lambda _: 1.0)[1] == 1.0
    one_end = drive(instability(dense, 0, WALKS), lambda ask: float(ask.draw == 1 and ask.point == Point(0, 1.0)))
    assert one_end[1] == 1.0


def test_all_candidates_are_walked_when_nothing_is_chosen(dense: Run) -> None:
    asked, _ = drive(all_candidates(dense, WALKS), hill)
    assert {ask.point.k for ask in asked if ask.point} == {0, 10, 20}
    assert [ask.run.last for ask in asked if ask.branch == "trunk"] == [10, 20]


STABILITY = {"candidates": ["0it", "20it", "1ep"], "pairs": 2, "points": 4}


def test_a_search_rewinds_to_what_is_stable() -> None:
    recipe = tiny(rewind={"to": "auto"}, stability=STABILITY | {"tolerance": 0.2})
    asked, _ = drive(Experiment(recipe).study(0), lambda ask: 0.9 * bool(ask.point and not ask.point.k) * inside(ask))
    assert [ask.run.begin for ask in asked if ask.branch == "ticket"] == [20] * 4
    assert {ask.point.k for ask in asked if ask.point} == {0, 20}
    # the dense network's run is one end of the lines: it is trained once
    assert len({ask.run.key for ask in asked if ask.run.end is None and ask.run.mask.density == 1}) == 2 + 4


def inside(ask: RunRequest) -> bool:
    return ask.point is not None and 0 < ask.point.share < 1


def test_no_more_runs_are_asked_for_than_expected() -> None:
    recipe = tiny(rewind={"to": "20it"}, stability=STABILITY)
    asked, _ = drive(Experiment(recipe).study(0), lambda _: 0.1)
    assert len(set(asked)) * recipe.replicates == expected_runs(recipe)
    assert [question for question in asked if question.branch == "stability"] == [a for a in asked if a.point]
    assert torch.tensor([ask.run.last for ask in asked if ask.branch == "trunk"]).unique().tolist() == [20, 25]
