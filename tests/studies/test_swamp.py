from __future__ import annotations

from dataclasses import replace

from tests.support.errors import raises_input_error
from tests.support.outcomes import outcome_of
from tests.support.recipes import tiny
from tests.support.studies import drive, prune_by_magnitude, requests_of
from tombola.experiments.experiment import count_runs
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.request import RunRequest
from tombola.studies.swamp import swamp_search

SWAMP = {"method": "swamp", "levels": 2, "rate": 0.4, "output_rate": 0.2}


def test_masks_are_pruned_by_the_average_of_all_particles_and_points(dense: Run) -> None:
    last = dense.last

    def outcome(request: RunRequest) -> Outcome:
        made = outcome_of(request.run)
        return replace(made, final={n: -v if request.branch == "average" else v**2 for n, v in made.final.items()})

    at = [last // 2, last]
    yielded, tickets = drive(swamp_search(dense, 1, prune_by_magnitude, [11, 12, 13], at), None, outcome)
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

    _, tickets = drive(swamp_search(dense, 3, prune_by_magnitude, [1], [dense.last]), None, outcome)
    assert [ticket.level for ticket in tickets] == [0, 1]


def test_all_runs_are_counted() -> None:
    recipe = tiny(search=SWAMP, swamp={"particles": 2, "points": 3}, controls={"reinit": 1})
    requests = requests_of(RecipeExperiment(recipe).study(0))
    assert len(set(requests)) * recipe.replicates == count_runs(recipe)


def test_options_that_do_not_fit_are_refused() -> None:
    with raises_input_error("rewind.method", "swamp"):
        tiny(search=SWAMP, rewind={"to": "7it", "method": "learning-rate"})
    with raises_input_error("swamp", "batch norm"):
        RecipeExperiment(tiny(search=SWAMP, data__name="digits", model={"name": "resnet", "depth": 8, "width": 2}))
