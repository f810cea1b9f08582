"""What trainings cost, in dense trainings."""

from __future__ import annotations

import pytest

from tests.support.recipes import tiny
from tombola.experiments.planning.expected_runs import expected_runs
from tombola.experiments.recipe import Recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.experiments.training_cost import DenseCost, TrainingCosts
from tombola.studies.controls import CONTROLS


def costs_of(recipe: Recipe) -> TrainingCosts:
    """What the first replicate is expected to cost."""
    experiment = RecipeExperiment(recipe)
    costs = TrainingCosts(DenseCost.of(experiment.dense(0)))
    for replicate, expected in expected_runs(experiment):
        if replicate == 0:
            costs.add(replicate, expected.request)
    return costs


def test_convolutions_cost_as_many_multiply_adds_as_they_have_positions() -> None:
    dense = DenseCost.of(RecipeExperiment(tiny(model={"name": "lenet-5"})).dense(0))
    found = dense.multiply_adds
    assert found["fc2.weight"] == 120 * 84
    assert found["conv1.weight"] % (6 * 25) == 0
    assert found["conv1.weight"] > 6 * 25
    assert dense.density(RecipeExperiment(tiny(model={"name": "lenet-5"})).dense(0).mask) == 1


def test_the_ticket_costs_its_density_and_its_search_all_trainings_before() -> None:
    costs, rate, total = costs_of(tiny()), 0.4, 1580
    kept = [1.0]
    counts = {"fc1": 1280, "fc2": 200, "output": 100}
    for _ in range(3):
        counts = {name: n - round((0.2 if name == "output" else rate) * n) for name, n in counts.items()}
        kept.append(sum(counts.values()) / total)
    assert costs.training((0, "ticket", 3, 0)) == pytest.approx(kept[3])
    assert costs.search((0, "ticket", 3, 0), CONTROLS, 0) == pytest.approx(sum(kept[:3]))
    assert costs.training((0, "reinit", 3, 1)) == pytest.approx(kept[3])


def test_the_trunk_of_rewound_tickets_is_part_of_their_training_once() -> None:
    costs = costs_of(tiny(rewind={"to": "15it"}, search={"levels": 1, "density": 0.5}, controls={}))
    assert costs.training((0, "ticket", 0, 0)) == pytest.approx(1.0)
    assert costs.training((0, "ticket", 1, 0)) == pytest.approx(0.25 + 0.75 * 0.5, abs=1e-3)
    assert costs.search((0, "ticket", 1, 0), CONTROLS, 0) == pytest.approx(0.75)


def test_learning_rate_rewinding_trains_on_from_level_to_level() -> None:
    costs = costs_of(tiny(rewind={"method": "learning-rate"}, search={"levels": 2, "rate": 0.5}, controls={}))
    assert costs.training((0, "ticket", 2, 0)) == pytest.approx(1.75, abs=1e-3)
    assert costs.search((0, "ticket", 2, 0), CONTROLS, 0) == 0


def test_segments_add_up() -> None:
    options = {"search": {"levels": 1, "density": 0.25, "method": "set"}, "set": {"changes": 4}, "controls": {}}
    costs = costs_of(tiny(**options))
    assert costs.training((0, "ticket", 1, 0)) == pytest.approx(0.25)
    assert costs.search((0, "ticket", 1, 0), CONTROLS, 1) == 0
    assert costs.total(1) == pytest.approx(0.25)


def test_training_scores_costs_as_much_as_the_dense_network() -> None:
    costs = costs_of(tiny(search={"levels": 1, "density": 0.25, "method": "edge-popup"}, controls={}))
    assert costs.training((0, "supermask", 1, 0)) == 0
    assert costs.search((0, "supermask", 1, 0), CONTROLS, 1) == pytest.approx(1.0)


def test_controls_cost_what_they_need_besides_the_search() -> None:
    names = ("reinit", "sign_in", "trained_signs", "permuted")
    costs = costs_of(tiny(search={"levels": 2, "rate": 0.5}, controls=dict.fromkeys(names, 1)))
    ticket = costs.training((0, "ticket", 2, 0))
    search = costs.search((0, "ticket", 2, 0), CONTROLS, 0)
    for name in names:
        assert costs.training((0, name, 2, 0)) == pytest.approx(ticket), name
    needed = {name: costs.search_of_control((0, name, 2, 0), CONTROLS) - search for name in names}
    assert needed == pytest.approx({"reinit": 0, "sign_in": 0, "trained_signs": ticket, "permuted": 1})
