from __future__ import annotations

from itertools import pairwise

import pytest

from tests.support.recipes import tiny
from tests.support.studies import drive, prune_by_magnitude, requests_of
from tombola.engines.optimizers import learning_rates
from tombola.experiments.experiment import count_runs
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.runs.run import Run
from tombola.studies.request import RunRequest
from tombola.studies.rewinding import Retrain, fine_tune, rewind_learning_rate, train_trunk
from tombola.studies.search import iterative_search, one_shot_search
from tombola.zoo.models.description import Trained


def test_rewinding_to_iteration_k_trains_the_trunk_once_and_resumes_from_it(dense: Run) -> None:
    yielded, rest = drive(train_trunk(dense, 20))
    assert yielded == [[RunRequest("trunk", 0, dense.until(20))]]
    assert (rest.begin, rest.last) == (20, 60)
    assert rest.start.trained == Trained(run=dense.until(20).key)
    _, tickets = drive(iterative_search(rest, 3, prune_by_magnitude))
    for ticket in tickets:
        assert ticket.run == rest.masked(ticket.run.mask)  # every level starts at the trunk's end


def test_rewinding_to_iteration_0_requests_nothing(dense: Run) -> None:
    assert drive(train_trunk(dense, 0)) == ([], dense)


@pytest.mark.parametrize(
    ("retrain", "iterations"), [(rewind_learning_rate(20), (20, 60)), (fine_tune(20), (60, 100))]
)
def test_learning_rate_rewinding_and_fine_tuning_resume_from_trained_weights(
    dense: Run, retrain: Retrain, iterations: tuple[int, int]
) -> None:
    _, tickets = drive(iterative_search(dense, 3, prune_by_magnitude, retrain))
    for before, ticket in pairwise(tickets):
        assert ticket.run.start.trained == Trained(run=before.run.key)
        assert (ticket.run.begin, ticket.run.last) == iterations
        assert ticket.run.mask <= before.run.mask


def test_one_shot_tickets_all_resume_from_the_dense_network(dense: Run) -> None:
    _, tickets = drive(one_shot_search(dense, 3, prune_by_magnitude, fine_tune(20)))
    assert {ticket.run.start.trained for ticket in tickets[1:]} == {Trained(run=dense.key)}


def test_learning_rates_after_rewinding() -> None:
    """Golden: of 12 iterations with steps at 6 and 9, rewound to the fifth."""
    steps = {"optimizer": "sgd", "lr": 0.1, "batch_size": 40, "length": "12it", "schedule": "step"}
    dense = RecipeExperiment(tiny(training=steps | {"milestones": ["6it", "9it"], "warmup": "2it"})).dense(0)

    def rates(run: Run) -> list[float]:
        return learning_rates(run.training, run.begin, run.last - run.begin).tolist()

    whole = [0.05, 0.1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001, 0.001]
    assert rates(dense) == pytest.approx(whole)
    _, rest = drive(train_trunk(dense, 4))
    assert rates(dense.until(4)) == pytest.approx(whole[:4])
    assert rates(rest) == pytest.approx(whole[4:])
    assert rates(rewind_learning_rate(4)(dense, dense, dense.mask)) == pytest.approx(whole[4:])
    assert rates(fine_tune(4)(dense, dense, dense.mask)) == pytest.approx([0.001] * 8)


def test_controls_that_draw_weights_start_at_iteration_0(dense: Run) -> None:
    ticket = dense.after(dense.until(20), begin=20)
    for control in (ticket.reinitialised(5), ticket.reusing(5)):
        assert (control.begin, control.last) == (0, 60)
        assert control.start.trained is None


@pytest.mark.parametrize(("method", "trunks"), [("weights", 1), ("learning-rate", 0), ("fine-tuning", 0)])
def test_an_experiment_uses_the_rewinding_of_its_recipe(method: str, trunks: int) -> None:
    recipe = tiny(rewind={"to": "20it", "method": method})
    requests = requests_of(RecipeExperiment(recipe).study(0))
    assert len(requests) * recipe.replicates == count_runs(recipe)
    assert [request.run.last for request in requests if request.branch == "trunk"] == [20] * trunks
    begins = [request.run.begin for request in requests if request.branch == "ticket"]
    assert begins == {"weights": [20] * 4, "learning-rate": [0, 20, 20, 20], "fine-tuning": [0, 60, 60, 60]}[method]
    assert {request.run.begin for request in requests if request.branch == "reinit"} == {0}
