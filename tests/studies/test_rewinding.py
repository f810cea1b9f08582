from __future__ import annotations

from itertools import pairwise

import pytest

from tests.conftest import tiny
from tests.studies.test_search import answer, prune_by_magnitude
from tombola.engines.lr_schedule import learning_rates
from tombola.experiments.experiment import Experiment, expected_runs
from tombola.runs.run import Run
from tombola.studies.request import RunRequest
from tombola.studies.rewinding import fine_tune, rewind_learning_rate, rewound_to
from tombola.studies.search import iterative_search, one_shot_search
from tombola.zoo.models.description import Trained


def test_rewinding_to_iteration_k_trains_the_trunk_once_and_goes_on_from_it(dense: Run) -> None:
    asked, going_on = answer(rewound_to(dense, 20))
    assert asked == [[RunRequest("trunk", 0, dense.until(20))]]
    assert (going_on.begin, going_on.last) == (20, 60)
    assert going_on.start.trained == Trained(run=dense.until(20).key)
    _, tickets = answer(iterative_search(going_on, 3, prune_by_magnitude))
    for ticket in tickets:
        assert ticket.run == going_on.masked(ticket.run.mask)  # every level starts at the trunk's end


def test_rewinding_to_the_beginning_asks_for_nothing(dense: Run) -> None:
    assert answer(rewound_to(dense, 0)) == ([], dense)


def test_learning_rate_rewinding_goes_on_from_trained_weights(dense: Run) -> None:
    _, tickets = answer(iterative_search(dense, 3, prune_by_magnitude, rewind_learning_rate(20)))
    for before, ticket in pairwise(tickets):
        assert ticket.run.start.trained == Trained(run=before.run.key)
        assert (ticket.run.begin, ticket.run.last) == (20, 60)
        assert ticket.run.mask <= before.run.mask


def test_fine_tuning_goes_on_from_trained_weights_after_the_end(dense: Run) -> None:
    _, tickets = answer(iterative_search(dense, 3, prune_by_magnitude, fine_tune(20)))
    for before, ticket in pairwise(tickets):
        assert ticket.run.start.trained == Trained(run=before.run.key)
        assert (ticket.run.begin, ticket.run.last) == (60, 100)


def test_one_shot_all_goes_on_from_the_dense_network(dense: Run) -> None:
    _, tickets = answer(one_shot_search(dense, 3, prune_by_magnitude, fine_tune(20)))
    assert {ticket.run.start.trained for ticket in tickets[1:]} == {Trained(run=dense.key)}


def test_learning_rates_after_rewinding_never_change() -> None:
    """Golden: of 12 iterations with steps at 6 and 9, rewound to the fifth."""
    steps = {"optimizer": "sgd", "lr": 0.1, "batch_size": 40, "length": "12it", "schedule": "step"}
    dense = Experiment(tiny(training=steps | {"milestones": ["6it", "9it"], "warmup": "2it"})).dense(0)

    def rates(run: Run) -> list[float]:
        return learning_rates(run.training, run.begin, run.last - run.begin).tolist()

    whole = [0.05, 0.1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001, 0.001]
    assert rates(dense) == pytest.approx(whole)
    _, going_on = answer(rewound_to(dense, 4))
    assert rates(dense.until(4)) == pytest.approx(whole[:4])
    assert rates(going_on) == pytest.approx(whole[4:])
    assert rates(rewind_learning_rate(4)(dense, dense, dense.mask)) == pytest.approx(whole[4:])
    assert rates(fine_tune(4)(dense, dense, dense.mask)) == pytest.approx([0.001] * 8)


def test_controls_that_draw_weights_are_trained_from_the_beginning(dense: Run) -> None:
    ticket = dense.after(dense.until(20), begin=20)
    for control in (ticket.reinitialised(5), ticket.reusing(5)):
        assert (control.begin, control.last) == (0, 60)
        assert control.start.trained is None


@pytest.mark.parametrize(("method", "trunks"), [("weights", 1), ("learning-rate", 0), ("fine-tuning", 0)])
def test_an_experiment_does_what_its_recipe_says(method: str, trunks: int) -> None:
    recipe = tiny(rewind={"to": "20it", "method": method})
    asked, _ = answer(Experiment(recipe).study(0))
    asks = [ask for question in asked for ask in question]
    assert len(asks) * recipe.replicates == expected_runs(recipe)
    assert [ask.run.last for ask in asks if ask.branch == "trunk"] == [20] * trunks
    begins = [ask.run.begin for ask in asks if ask.branch == "ticket"]
    assert begins == {"weights": [20] * 4, "learning-rate": [0, 20, 20, 20], "fine-tuning": [0, 60, 60, 60]}[method]
    assert {ask.run.begin for ask in asks if ask.branch == "reinit"} == {0}
