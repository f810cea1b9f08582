"""Recipes of other methods with as many weights as a ticket."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.recipes import tiny
from tombola.experiments.compared_methods import Choice, MethodRecipes, row_names, scaled, split_overrides
from tombola.experiments.methods import METHODS
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.pruning.scopes import goals
from tombola.utils.errors import InputError

ONE_LEVEL = [method for method in METHODS.values() if method.one_level]


def recipes(level: int = 2, sections: dict[str, Any] | None = None, **changes: Any) -> MethodRecipes:
    return MethodRecipes(RecipeExperiment(tiny(**changes)), level, sections or {})


def kept(experiment: RecipeExperiment, level: int) -> dict[tuple[str, ...], int]:
    pruner = experiment.workload.pruner
    return dict(goals(pruner.scope, pruner.units_left(experiment.dense(0).mask), level)[-1])


@pytest.mark.parametrize("method", ONE_LEVEL, ids=lambda method: method.name)
@pytest.mark.parametrize(
    "search", [{"levels": 3, "rate": 0.37, "output_rate": 0.2}, {"levels": 3, "rate": 0.4, "scope": "erk"}]
)
def test_every_layer_keeps_exactly_as_many_weights(method: Any, search: dict[str, Any]) -> None:
    made = recipes(search=search)
    other = RecipeExperiment(made.one_level(method))
    assert kept(other, 1) == kept(made.experiment, 2)
    assert sum(kept(other, 1).values()) < 1580 / 2


@pytest.mark.parametrize("method", ONE_LEVEL, ids=lambda method: method.name)
def test_the_total_of_a_global_search_is_exact(method: Any) -> None:
    made = recipes(search={"levels": 3, "rate": 0.37, "scope": "global"})
    other = RecipeExperiment(made.one_level(method))
    assert sum(kept(other, 1).values()) == sum(kept(made.experiment, 2).values())


def test_all_durations_and_changes_are_stretched() -> None:
    made = recipes(training__schedule="step", training__milestones=["30it"], training__warmup="4it")
    recipe = made.one_level(METHODS["rigl"], 2.5)
    assert scaled(recipe.training, 1.0) == {
        "length": "150it",
        "evaluate_every": "25it",
        "warmup": "10it",
        "milestones": ["75it"],
    }
    assert recipe.rigl is not None
    assert recipe.rigl.changes == 50


def test_the_search_ends_at_the_level_and_trains_controls_there() -> None:
    recipe = recipes().search(["reinit", "random"])
    assert recipe.search.levels == 2
    controls = {name: (each.draws, each.levels) for name, each in recipe.controls.items()}
    assert controls == {"reinit": (2, [2]), "random": (1, [2])}  # the recipe has two draws of `reinit`


def test_a_search_to_a_density_keeps_its_levels() -> None:
    made = recipes(search={"levels": 3, "density": 0.2})
    assert made.search([]).search.levels == 3


def test_other_ways_of_rewinding() -> None:
    assert recipes().rewinding("fine-tuning").rewind.method == "fine-tuning"
    with pytest.raises(InputError, match="is how the ticket is rewound"):
        recipes(rewind={"method": "learning-rate"}).rewinding("learning-rate")
    with pytest.raises(InputError, match="near 0"):
        recipes(training__schedule="cosine").rewinding("fine-tuning")


def test_overrides_of_other_methods_are_kept_apart() -> None:
    own, sections = split_overrides(["training.lr=0.1", "rigl.changes=3", "edge_popup.lr=0.5", "replicates=2"])
    assert own == ["training.lr=0.1", "replicates=2"]
    assert sections == {"rigl": {"changes": 3}, "edge_popup": {"lr": 0.5}}
    recipe = recipes(sections=sections).one_level(METHODS["rigl"], 2.0)
    assert recipe.rigl is not None
    assert recipe.rigl.changes == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"level": 4}, "from 1 to search.levels, 3, not 4"),
        ({"search": {"levels": 1, "density": 0.2, "method": "rigl"}, "level": 1}, 'not "rigl"'),
        ({"search": {"levels": 2, "rate": 0.2, "structure": "neurons"}}, 'not "neurons"'),
    ],
)
def test_what_cannot_be_compared(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recipes(**changes)


def test_rows_are_chosen_by_name() -> None:
    assert [name for name in row_names() if name in Choice(["rigl", "reinit"], ["reinit"])] == ["rigl"]
    assert set(row_names()) - {name for name in row_names() if name in Choice(without=["set"])} == {"set"}
    with pytest.raises(InputError, match='did you mean "rigl"'):
        Choice(["rigll"])
