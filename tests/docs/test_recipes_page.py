"""docs/how-to/recipes.md: its recipes and controls are those that there are, and its TOML is valid."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from tombola.experiments.recipe import parse_recipe
from tombola.experiments.recipe_files import recipes
from tombola.studies.controls import CONTROLS

PAGE = (Path(__file__).parents[2] / "docs/how-to/recipes.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (`.*?) \|", PAGE, re.M)


def test_every_control_and_only_known_recipes_are_in_the_tables() -> None:
    names = {name for row in ROWS for name in re.findall(r"`([^`]+)`", row)}
    assert names & {*CONTROLS} == {*CONTROLS}
    assert names - {*CONTROLS} <= {*recipes()}


def test_the_recipe_is_valid() -> None:
    blocks = [tomllib.loads(block) for block in re.findall(r"^```toml\n(.*?)^```", PAGE, re.M | re.S)]
    recipe = parse_recipe(next(block for block in blocks if "name" in block), "the page")
    added = next(block for block in blocks if "name" not in block)
    assert parse_recipe(recipe.resolved() | added, "the page").controls["random"].levels == [3, 5]
