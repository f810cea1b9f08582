from __future__ import annotations

from pathlib import Path

import pytest
import tomli_w

from tests.support.errors import raises_input_error
from tests.support.recipes import tiny
from tombola.experiments.grid import grid_recipes, overrides_of, parse_grid, split_values
from tombola.utils.duration import Duration


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "tiny.toml"
    path.write_text(tomli_w.dumps(tiny().resolved()))
    return str(path)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.05,0.1", ["0.05", "0.1"]),
        ("adam, sgd", ["adam", "sgd"]),
        ('["2ep"],["3ep", "4ep"]', ['["2ep"]', '["3ep", "4ep"]']),
        ("\"a,b\",'c,]'", ['"a,b"', "'c,]'"]),
        ("{a = 1, b = [2, 3]},[[1, 2], [3]]", ["{a = 1, b = [2, 3]}", "[[1, 2], [3]]"]),
    ],
)
def test_values_are_divided_at_the_outer_commas(text: str, values: list[str]) -> None:
    assert split_values(text) == values
    assert parse_grid([f"search.score={text}"]) == {"search.score": values}


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        (["training.lr"], "key=value"),
        (["=1,2"], "key=value"),
        (["training.lr="], "key=value"),
        (["training.lr=1,,2"], "key=value"),
        (["training.lr=0.1,1e-1"], "0.1 twice"),
        (["training.optimizer=adam,'adam'"], "adam twice"),
        (["training.lr=0.1", "training.lr=0.2"], "training.lr: is given twice"),
    ],
)
def test_other_grids_are_refused(options: list[str], fact: str) -> None:
    with raises_input_error("--grid", fact):
        parse_grid(options)


def test_every_combination_has_a_recipe_and_a_name(recipe: str) -> None:
    grid = parse_grid(["training.lr=0.05,0.1", "search.rate=0.2,0.4"])
    found = grid_recipes(recipe, grid, ["replicates=3"])
    assert {name: (each.training.lr, each.search.rate, each.replicates) for name, each in found.items()} == {
        "lr=0.05,rate=0.2": (0.05, 0.2, 3),
        "lr=0.05,rate=0.4": (0.05, 0.4, 3),
        "lr=0.1,rate=0.2": (0.1, 0.2, 3),
        "lr=0.1,rate=0.4": (0.1, 0.4, 3),
    }


@pytest.mark.parametrize(
    ("grid", "names"),
    [
        ({"training.milestones": ['["2ep"]', '["3ep","4ep"]']}, ["milestones=2ep", "milestones=3ep+4ep"]),
        ({"training.nesterov": ["true", "false"]}, ["nesterov=true", "nesterov=false"]),
        ({"training.lr": ["1e-3"], "early_bird.lr": ["2"]}, ["training.lr=0.001,early_bird.lr=2"]),
        ({"data.name": ["/data/my set.npz"]}, ["name=_data_my_set.npz"]),
        ({"data.name": [".."]}, ["name=.."]),
        ({'search.rates."fc1.weight"': ["0.1"]}, ["weight=0.1"]),
    ],
)
def test_names_are_those_of_folders(grid: dict[str, list[str]], names: list[str]) -> None:
    assert [*overrides_of(grid)] == names


def test_a_larger_grid_keeps_the_names() -> None:
    small, large = {"training.lr": ["0.1"]}, {"training.lr": ["0.2", "0.1"]}
    assert overrides_of(small).items() <= overrides_of(large).items()


def test_combinations_of_one_name_are_refused() -> None:
    with raises_input_error("name=a_b"):
        overrides_of({"data.name": ["a/b", "a b"]})


def test_lists_and_lengths_are_values(recipe: str) -> None:
    step = ["training.schedule=step", "training.optimizer=sgd"]
    found = grid_recipes(recipe, parse_grid(['training.milestones=["20it"],["30it","40it"]']), step)
    assert [each.training.milestones for each in found.values()] == [
        (Duration(iterations=20),),
        (Duration(iterations=30), Duration(iterations=40)),
    ]


@pytest.mark.parametrize("override", ["training.lr=0.5", ' "training".lr = 0.5'])
def test_a_value_that_the_grid_gives_is_not_overridden(recipe: str, override: str) -> None:
    with raises_input_error("--set", "training.lr"):
        grid_recipes(recipe, parse_grid(["training.lr=0.1,0.2"]), ["replicates=3", override])


def test_a_table_that_the_grid_gives_is_not_overridden(recipe: str) -> None:
    tables = parse_grid(["controls={reinit=0},{reinit=1}"])
    assert len(grid_recipes(recipe, tables)) == 2
    with raises_input_error("--set controls.random=1", "--grid controls"):
        grid_recipes(recipe, tables, ["controls.random=1"])


def test_an_invalid_combination_is_named(recipe: str) -> None:
    with raises_input_error("lr=-1", "training.lr"):
        grid_recipes(recipe, parse_grid(["training.lr=0.1,-1"]))
    with raises_input_error("optimiser", "optimizer"):
        grid_recipes(recipe, parse_grid(["training.optimiser=adam"]))
