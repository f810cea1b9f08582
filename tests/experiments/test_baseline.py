"""`[baseline]`: which trainings of the dense network it means, and a whole experiment with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.errors import raises_input_error
from tests.support.experiments import simulate, train
from tests.support.recipes import tiny
from tests.support.reports import document_of, section_names
from tests.support.studies import requests_of
from tombola.experiments.baseline import MAX_TRAININGS
from tombola.experiments.experiment import count_runs
from tombola.experiments.recipe import parse_recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.stats.summarise import build_summary
from tombola.utils.errors import InputError

RATES = {"lr": [0.01, 5e-3, 0.02, 0.01]}
"""The second is that of the tickets, and the last is there twice."""


def test_every_combination_is_tried_once_in_a_fixed_order() -> None:
    recipe = tiny(baseline={"weight_decay": [0, 1e-3], "lr": [0.01, 5e-3]})
    tried = [(training.lr, training.weight_decay) for training in recipe.dense_trainings]
    assert tried == [(5e-3, 0), (0.01, 0), (0.01, 1e-3), (5e-3, 1e-3)]
    assert all(training.batch_size == 40 for training in recipe.dense_trainings)
    assert recipe.baseline_labels == [
        "lr = 0.005, weight_decay = 0",
        "lr = 0.01, weight_decay = 0",
        "lr = 0.01, weight_decay = 0.001",
        "lr = 0.005, weight_decay = 0.001",
    ]
    assert tiny(baseline={"lr": [0.01, 5e-3], "weight_decay": [0, 1e-3]}).dense_trainings == recipe.dense_trainings
    assert len(tiny(baseline=RATES).dense_trainings) == 3


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        (
            {"optimizer": ["sgd"], "momentum": [0.9], "nesterov": [True]},
            "optimizer = sgd, momentum = 0.9, nesterov =",
        ),
        ({"length": ["3ep"]}, "length = 3ep"),
        ({"schedule": ["step"], "milestones": [["5it", "1ep"]]}, "schedule = step, milestones = [5it, 1ep]"),
    ],
)
def test_any_option_can_be_varied(changes: dict[str, Any], label: str) -> None:
    recipe = tiny(baseline=changes)
    assert label in recipe.baseline_labels[1]
    assert parse_recipe(recipe.resolved(), "again") == recipe


def test_other_trainings_are_requested_after_the_search() -> None:
    recipe = tiny(baseline=RATES)
    requests = requests_of(RecipeExperiment(recipe).study(1))
    assert count_runs(recipe) == count_runs(tiny()) + 2 * 2 == 2 * len(requests)
    found = [(request.level, request.draw, request.run.training.lr) for request in requests[-2:]]
    assert found == [(0, 0, 0.01), (0, 1, 0.02)]
    assert {request.branch for request in requests[-2:]} == {"baseline"}
    dense = requests[0].run
    for request in requests[-2:]:
        same = request.run.model_copy(update={"training": dense.training})
        assert same == dense  # the same weights, mask, split and batch order
    assert requests[:-2] == requests_of(RecipeExperiment(tiny()).study(1))  # with the same keys


def test_other_trainings_have_no_trunk() -> None:
    requests = requests_of(RecipeExperiment(tiny(baseline=RATES, rewind={"to": "20it"})).study(0))
    ranges = {(request.run.begin, request.run.last) for request in requests if request.branch == "baseline"}
    assert ranges == {(0, 60)}


@pytest.mark.parametrize(
    ("baseline", "facts"),
    [
        ({"lrr": [0.1]}, ["baseline", '"lrr"', '"lr"?']),
        ({"lr": 0.1}, ["baseline.lr", "list", "0.1"]),
        ({"lr": []}, ["baseline.lr", "list"]),
        ({"lr": [0.1, 0]}, ["baseline.lr", "greater than 0", "not 0"]),
        ({"lr": ["fast"]}, ["baseline.lr", "number", "'fast'"]),
        ({"optimizer": ["adm"]}, ["baseline.optimizer", '"adm"', '"adam"?']),
        ({"momentum": [0.9]}, ["baseline", "momentum = 0.9", "sgd"]),
        ({"lr": [5e-3]}, ["baseline", "differ"]),
        ({}, ["baseline", "differ"]),
        ({"lr": [0.001 * i for i in range(1, MAX_TRAININGS + 2)]}, ["baseline", "100", "101"]),
        ({"batch_size": [998]}, ["baseline.batch_size", "997", "998"]),
        ({"warmup": ["60it"]}, ["baseline.warmup", "60it"]),
        ({"schedule": ["step"], "milestones": [["9it", "5it"]]}, ["baseline.milestones", "order"]),
    ],
)
def test_mistakes_are_named_before_anything_is_trained(baseline: dict[str, Any], facts: list[str]) -> None:
    with raises_input_error(*facts):
        RecipeExperiment(tiny(baseline=baseline))


def test_messages_about_values_are_those_of_the_training_section() -> None:
    for option, value in (("lr", -1), ("optimizer", "adm"), ("length", "5 epochs"), ("batch_size", 1.5)):
        messages = []
        for changes in ({f"training__{option}": value}, {f"baseline__{option}": [value]}):
            with pytest.raises(InputError, match=option) as error:
                tiny(**changes)
            messages.append(str(error.value))
        assert messages[0].replace("training.", "baseline.") == messages[1]


def test_a_whole_experiment_with_other_learning_rates(tmp_path: Path) -> None:
    recipe = tiny(replicates=3, search__levels=2, controls={}, baseline={"lr": [1e-5, 0.01]})
    results, recorder = train(recipe, tmp_path)
    assert len(results.rows) == len(recorder.trained) == count_runs(recipe) == 3 * (3 + 2)
    others = [row for row in results.rows if row.branch == "baseline"]
    assert [(row.replicate, row.level, row.draw) for row in others] == [(r, 0, d) for r in range(3) for d in (0, 1)]
    assert {row.weights for row in others} == {1580}
    summary = build_summary(results)
    assert summary.baseline is not None
    assert [each.training for each in summary.baseline.trainings] == ["lr = 0.005", "lr = 1e-05", "lr = 0.01"]
    assert summary.baseline.best in (0, 2)  # with the other one, nothing is learned
    assert list(summary.levels[0].branches) == ["ticket"]
    assert "baseline" in section_names(document_of(tmp_path / "out"))
    again, recorder = train(recipe, tmp_path)
    assert (recorder.trained, again.rows) == ([], results.rows)


def test_all_other_rows_are_as_without_a_baseline(tmp_path: Path) -> None:
    plain, _ = simulate(tiny(), tmp_path / "plain")
    tuned, _ = simulate(tiny(baseline=RATES), tmp_path / "tuned")
    assert [row for row in tuned.rows if row.branch != "baseline"] == plain.rows
    assert len(tuned.rows) == len(plain.rows) + 2 * 2
