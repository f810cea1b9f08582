"""`tombola recipes`, and `tombola run --save`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import tombola
from tombola.experiments.recipe import load_recipe
from tombola.experiments.recipe_files import recipes
from tombola.experiments.recipe_index import recipe_sizes


def test_recipes_fit_a_screen_of_30_lines_and_80_columns() -> None:
    lines = tombola("recipes").stdout.splitlines()
    assert len(lines) < 30
    assert max(map(len, lines)) <= 80


def test_all_recipes_are_in_the_document() -> None:
    document = json.loads(tombola("recipes", "--json").stdout)
    assert document.keys() == recipes().keys()
    assert "LeNet-300-100" in document["lenet-mnist"]


@pytest.mark.parametrize("name", ["digits", "resnet20-cifar10-small"])
def test_a_recipe_is_printed_as_it_is(name: str, tmp_path: Path) -> None:
    printed = tombola("recipes", name).stdout
    assert printed == recipes()[name]
    (tmp_path / "my.toml").write_text(printed)
    assert load_recipe("my.toml") == load_recipe(name)
    document = json.loads(tombola("recipes", name, "--json").stdout)
    assert document["toml"] == printed
    assert document["weights"] == recipe_sizes()[name].weights


def test_an_unknown_recipe_is_refused() -> None:
    result = tombola("recipes", "digit")
    assert result.exit_code == 2
    assert 'did you mean "digits"?' in result.stderr


@pytest.mark.parametrize("name", recipes())
def test_a_saved_recipe_is_the_same_one(name: str) -> None:
    override = "seed=7"
    result = tombola("run", name, "--set", override, "--save", "my.toml")
    assert result.exit_code == 0, result.stderr
    assert load_recipe("my.toml") == load_recipe(name, [override])


def test_a_saved_recipe_has_the_same_runs_and_nothing_is_trained(tmp_path: Path) -> None:
    from tombola.experiments.recipe_experiment import RecipeExperiment

    overrides = ["training.lr=0.1", "search.levels=2", "replicates=2"]
    arguments = [part for override in overrides for part in ("--set", override)]
    assert tombola("run", "digits", *arguments, "--save", "my.toml").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.toml", "my.toml"}
    saved, original = (
        RecipeExperiment(recipe) for recipe in (load_recipe("my.toml"), load_recipe("digits", overrides))
    )
    assert [saved.dense(each).key for each in range(2)] == [original.dense(each).key for each in range(2)]


def test_a_file_is_not_overwritten_by_a_saved_recipe(tmp_path: Path) -> None:
    before = (tmp_path / "tiny.toml").read_text()
    refused = tombola("run", "digits", "--save", "tiny.toml")
    assert refused.exit_code == 2
    assert "tiny.toml exists" in refused.stderr
    assert (tmp_path / "tiny.toml").read_text() == before
    assert tombola("run", "digits", "--save", "tiny.toml", "--force").exit_code == 0
    assert load_recipe("tiny.toml") == load_recipe("digits")
