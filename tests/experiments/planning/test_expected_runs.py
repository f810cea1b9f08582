"""What is expected is what an experiment then requests."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.experiments import rotated_digits, simulate
from tests.support.recipes import tiny
from tombola.experiments.experiment import count_runs
from tombola.experiments.planning.expected_runs import expected_runs, expected_work, why_at_most
from tombola.experiments.recipe import Recipe, load_recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.experiments.recipe_files import recipes
from tombola.runs.store import Store
from tombola.studies.rehearsal import MadeUp
from tombola.studies.request import RunRequest

STABILITY = {"candidates": ["0it", "20it"], "pairs": 2, "points": 4}

RECIPES: dict[str, dict[str, Any]] = {
    "iterative": {"controls": {"reinit": 2, "random": 1, "shuffled": 1, "large_init": 1, "reuse": 1, "one_shot": 1}},
    "one-shot": {"search__one_shot": True, "controls": {"random_global": 2}},
    "rewound": {"rewind": {"to": "20it"}, "controls": {"random": {"draws": 2, "levels": [1, 3]}}},
    "fine-tuning": {"rewind": {"method": "fine-tuning"}},
    "global": {"search": {"levels": 2, "rate": 0.3, "scope": "global"}, "controls": {"random": 1}},
    "erk": {"search": {"levels": 2, "rate": 0.3, "scope": "erk"}, "controls": {"random": 1}},
    "synflow": {"search": {"levels": 2, "rate": 0.3, "score": "synflow"}},
    "neurons": {"search": {"levels": 2, "rate": 0.3, "structure": "neurons"}},
    "2:4": {"search": {"levels": 1, "density": 0.5, "structure": "2:4", "leave_out": ["output"]}},
    "baseline": {"baseline": {"lr": [0.01, 0.02]}},
    "stability": {"stability": STABILITY | {"tickets": True}},
    "gradual": {"search": {"levels": 1, "rate": 0.8, "method": "gradual"}, "gradual": {"changes": 5}},
    "set": {"search": {"levels": 1, "rate": 0.8, "method": "set"}, "set": {"changes": 3}, "controls": {"rewound": 1}},
    "rigl": {"search": {"levels": 1, "rate": 0.8, "method": "rigl"}, "rigl": {"changes": 3}, "controls": {}},
    "edge-popup": {"search": {"levels": 1, "rate": 0.5, "method": "edge-popup"}},
    "biprop": {"search": {"levels": 1, "rate": 0.5, "method": "biprop"}},
}


def facts(study: int, request: RunRequest) -> tuple[object, ...]:
    """What does not depend on results."""
    run = request.run
    return study, request.branch, request.level, request.draw, request.point, run.shape, run.mask.count


@pytest.mark.parametrize("changes", RECIPES.values(), ids=RECIPES)
def test_every_request_is_expected(changes: dict[str, Any], tmp_path: Path) -> None:
    recipe = tiny(replicates=1, **changes)
    _, recorder = simulate(recipe, tmp_path)
    requested = Counter(facts(study, request) for study, request in recorder.answers)
    expected = Counter(facts(study, each.request) for study, each in expected_runs(RecipeExperiment(recipe)))
    assert expected == requested


@pytest.mark.parametrize("changes", RECIPES.values(), ids=RECIPES)
def test_all_replicates_do_the_work_of_the_first(changes: dict[str, Any]) -> None:
    experiment = RecipeExperiment(tiny(replicates=3, **changes))
    work = [facts(study, each.request) for study, each in expected_work(experiment)]
    assert Counter(work) == Counter(facts(study, each.request) for study, each in expected_runs(experiment))


def test_transfers_are_expected(tmp_path: Path) -> None:
    data = {"name": str(rotated_digits(tmp_path, classes=5)), "validation": 100}
    recipe = tiny(transfer={"data": data, "draws": 2}, controls={})
    _, recorder = simulate(recipe, tmp_path)
    expected = Counter(facts(study, each.request) for study, each in expected_runs(RecipeExperiment(recipe)))
    assert expected == Counter(facts(study, request) for study, request in recorder.answers)


def distinct(recipe: Recipe) -> int:
    return len({(study, each.request.request_id) for study, each in expected_runs(RecipeExperiment(recipe))})


@pytest.mark.parametrize("name", [name for name in recipes() if name.startswith("digits")])
def test_as_many_as_are_counted(name: str) -> None:
    recipe = load_recipe(name, ["replicates=2"])
    assert distinct(recipe) == count_runs(recipe)


@pytest.mark.parametrize("changes", RECIPES.values(), ids=RECIPES)
def test_as_many_as_are_counted_of_a_tiny_recipe(changes: dict[str, Any]) -> None:
    assert distinct(tiny(**changes)) == count_runs(tiny(**changes))


def test_what_depends_on_results_is_a_maximum() -> None:
    early_bird = tiny(search={"levels": 1, "rate": 0.5, "method": "early-bird"}, early_bird={"draws": 6}, controls={})
    auto = tiny(stability=STABILITY, rewind={"to": "auto"}, controls={})
    for recipe in (early_bird, auto):
        assert why_at_most(recipe)
        assert distinct(recipe) == count_runs(recipe)
    assert why_at_most(tiny()) is None


def test_known_outcomes_are_used(tmp_path: Path) -> None:
    recipe = tiny(search__levels=2)
    _, recorder = simulate(recipe, tmp_path)
    store = Store(tmp_path / "store")
    same = [each for _, each in expected_runs(RecipeExperiment(recipe), store)]
    assert not any(isinstance(each.outcome, MadeUp) for each in same)
    assert {each.request.run.key for each in same} == {run.key for run in recorder.trained}
    extended = tiny(search__levels=3)
    new = [each for _, each in expected_runs(RecipeExperiment(extended), store) if isinstance(each.outcome, MadeUp)]
    assert {each.request.level for each in new} == {3}  # the first made-up outcome comes after all known ones
    _, more = simulate(extended, tmp_path)
    assert {each.request.run.key for each in new} == {run.key for run in more.trained}
