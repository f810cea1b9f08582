from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.errors import raises_input_error
from tests.support.networks import BATCH_NORM
from tests.support.outcomes import outcome_of
from tests.support.recipes import tiny
from tests.support.studies import drive, prune_by_magnitude, requests_of
from tombola.engines.optimizers import learning_rates
from tombola.experiments.experiment import count_runs
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.request import RunRequest
from tombola.studies.swamp import Particles, swamp_search
from tombola.utils.duration import Duration

SWAMP = {"method": "swamp", "levels": 2, "rate": 0.4, "output_rate": 0.2}


def test_masks_are_pruned_by_the_average_of_all_particles_and_points(dense: Run) -> None:
    last = dense.last

    def outcome(request: RunRequest) -> Outcome:
        made = outcome_of(request.run)
        return replace(made, final={n: -v if request.branch == "average" else v**2 for n, v in made.final.items()})

    at = [last // 2, last]
    yielded, tickets = drive(swamp_search(dense, 1, prune_by_magnitude, Particles([11, 12, 13], at)), None, outcome)
    first, second = (each for each in yielded if each[0].branch == "particle" and each[0].level == 0)
    assert [each.run.seed for each in first] == [each.run.seed for each in second] == [11, 12, 13]
    assert all(each.run.start == dense.start for each in first)
    for before, after in zip(first, second, strict=True):
        assert after.run.start.trained.run == before.run.key
        assert (before.run.end, after.run.begin, after.run.end) == (last // 2, last // 2, last)
    (average,) = next(each for each in yielded if each[0].branch == "average")
    trained = average.run.start.trained
    assert {trained.run, *dict(trained.averaged)} == {each.run.key for each in (*first, *second)}
    assert {weight for _, weight in trained.averaged} == {1 / 6}
    assert average.run.begin == average.run.end == last
    assert tickets[1].run == dense.masked(prune_by_magnitude(outcome(average), dense, 1))


def test_a_search_ends_if_a_particle_diverges(dense: Run) -> None:
    def outcome(request: RunRequest) -> Outcome:
        return outcome_of(request.run, diverged=request.branch == "particle" and request.level == 1)

    _, tickets = drive(swamp_search(dense, 3, prune_by_magnitude, Particles([1], [dense.last])), None, outcome)
    assert [ticket.level for ticket in tickets] == [0, 1]


def test_the_learning_rate_may_be_constant_while_weights_are_averaged(dense: Run) -> None:
    scheduled = dense.model_copy(
        update={
            "training": dense.training.model_copy(update={"schedule": "cosine", "warmup": Duration(iterations=4)})
        }
    )
    particles = Particles([1, 2], [40, 60], lr=0.3, begin=30)
    yielded, _ = drive(swamp_search(scheduled, 0, prune_by_magnitude, particles))
    segments = [each[0].run for each in yielded if each[0].branch == "particle"]
    assert [(run.begin, run.end) for run in segments] == [(0, 30), (30, 40), (40, 60)]
    assert segments[0].training == scheduled.training
    for run in segments[1:]:
        assert learning_rates(run.training, run.begin, 10).tolist() == [0.3] * 10
    average = next(each[0].run for each in yielded if each[0].branch == "average")
    averaged = {average.start.trained.run, *dict(average.start.trained.averaged)}
    assert averaged == {each.run.key for asked in yielded[2:4] for each in asked}
    assert average.training == scheduled.training


@pytest.mark.parametrize("swamp", [{}, {"lr": 0.1}, {"lr": 0.1, "begin": 0.0}])
def test_all_runs_are_counted(swamp: dict[str, object]) -> None:
    recipe = tiny(search=SWAMP, swamp={"particles": 2, "points": 3} | swamp, controls={"reinit": 1})
    requests = requests_of(RecipeExperiment(recipe).study(0))
    assert len(set(requests)) * recipe.replicates == count_runs(recipe)


@pytest.mark.parametrize(("model", "expected"), [({}, "0it"), (BATCH_NORM, "7it")])
def test_statistics_of_batch_norm_are_recomputed(model: dict[str, object], expected: str) -> None:
    changes = {"model": model} if model else {}
    recipe = tiny(search=SWAMP | {"output_rate": 0.1}, swamp={"statistics": "7it"}, **changes)
    averages = [each for each in requests_of(RecipeExperiment(recipe).study(0)) if each.branch == "average"]
    assert [str(each.run.start.trained.statistics) for each in averages] == [expected] * 3


def test_options_that_do_not_fit_are_refused() -> None:
    with raises_input_error("rewind.method", "swamp"):
        tiny(search=SWAMP, rewind={"to": "7it", "method": "learning-rate"})
    with raises_input_error("swamp.lr", "greater than 0"):
        tiny(search=SWAMP, swamp={"lr": 0})
