"""Grids: a recipe with every combination of several values."""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from tombola.experiments.recipe import Recipe, load_recipe
from tombola.utils.errors import InputError

Grid = Mapping[str, Sequence[str]]
"""The values of each dotted key of a recipe, as they are written in TOML, or as text."""


def parse_grid(options: Sequence[str]) -> dict[str, list[str]]:
    """The grid that `--grid KEY=VALUE,VALUE...` gives. Commas within brackets, braces and quotes are part of a value.

    Raises `InputError` if an option has another form, and if a key or a value is given twice.

    >>> parse_grid(['training.milestones=["2ep"],["3ep","4ep"]'])
    {'training.milestones': ['["2ep"]', '["3ep","4ep"]']}
    """
    grid: dict[str, list[str]] = {}
    for option in options:
        key, equals, text = option.partition("=")
        key, values = key.strip(), split_values(text)
        if not key or not equals or "" in values:
            raise InputError(f'--grid {option!r}: should be key=value,value,..., such as "training.lr=0.05,0.1"')
        if key in grid:
            raise InputError(f"--grid {key}: is given twice; list all values in one")
        same = [value for value, other in itertools.combinations(values, 2) if parsed(value) == parsed(other)]
        if same:
            raise InputError(f"--grid {key}: has the value {same[0]} twice")
        grid[key] = values
    return grid


def split_values(text: str) -> list[str]:
    """The values between the commas at top level.

    >>> split_values("0.1, [1, 2],'a,b'")
    ['0.1', '[1, 2]', "'a,b'"]
    """
    values, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        elif letter == "," and depth == 0:
            values.append("")
            continue
        values[-1] += letter
    return [value.strip() for value in values]


def parsed(value: str) -> object:
    """A value as `--set` reads it."""
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


def overrides_of(grid: Grid) -> dict[str, list[str]]:
    """The overrides that make each combination of a grid, by a name that contains its values. The last key varies
    fastest. Names depend only on the keys and on the combination's own values, so a larger grid keeps them.

    Raises `InputError` if two combinations would have the same name.
    """
    heads = short_keys(list(grid))
    found: dict[str, list[str]] = {}
    for values in itertools.product(*grid.values()):
        name = ",".join(f"{head}={_in_a_name(value)}" for head, value in zip(heads, values, strict=True))
        if name in found:
            raise InputError(f"--grid: two combinations would both be called {name}; sweep over them separately")
        found[name] = [f"{key}={value}" for key, value in zip(grid, values, strict=True)]
    return found


def grid_recipes(recipe: str | Path, grid: Grid, overrides: Sequence[str] = ()) -> dict[str, Recipe]:
    """The recipe of each combination, by its name. Raises `InputError`, which names the combination, if one is
    invalid, and if an override sets a value that the grid gives."""
    for override, key in itertools.product(overrides, grid):
        if f"{_plain(override.partition('=')[0].strip())}.".startswith(f"{_plain(key)}."):
            raise InputError(f"--set {override}: the value is that of --grid {key}; give only one of them")
    recipes = {}
    for name, own in overrides_of(grid).items():
        try:
            recipes[name] = load_recipe(recipe, [*overrides, *own])
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
    return recipes


def short_keys(keys: Sequence[str]) -> list[str]:
    """The last parts of dotted keys, as names can contain them; whole keys if the last parts are not all different.

    >>> short_keys(["training.lr", "search.rate"])
    ['lr', 'rate']
    """
    whole = [_plain(key) for key in keys]
    last = [key.rpartition(".")[2] for key in whole]
    return last if len(set(last)) == len(last) else whole


def _in_a_name(value: str) -> str:
    """A value as a name can contain it: the items of a list with + between them."""
    read = parsed(value)
    if isinstance(read, list):
        return _plain("+".join(map(str, read)))
    return _plain(str(read).lower() if isinstance(read, bool) else str(read))


def _plain(text: str) -> str:
    """Letters, digits and `.+-_`, which names of folders can have everywhere."""
    return re.sub(r"[^\w.+-]+", "_", text.replace('"', "").replace("'", ""), flags=re.ASCII)
