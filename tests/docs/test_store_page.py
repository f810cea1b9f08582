"""docs/how-to/store.md has every key of `tombola list --json`, and its commands exist."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

from tests.support.command_line import tombola
from tombola.experiments.grid import grid_recipes, parse_grid
from tombola.stats.experiment_list import ListedExperiment

PAGE = (Path(__file__).parents[2] / "docs/how-to/store.md").read_text(encoding="utf-8")


def test_every_key_of_the_list_is_described() -> None:
    section = PAGE.partition("## Listing experiments")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.M) == list(ListedExperiment.model_fields)


def test_the_options_of_the_commands_exist() -> None:
    commands = [shlex.split(line)[1:] for line in PAGE.splitlines() if line.startswith("tombola ")]
    assert len(commands) > 8
    for command in commands:
        named = command[:2] if command[0] == "store" else command[:1]
        shown = tombola(*named, "--help").stdout
        assert all(part in shown for part in command if part.startswith("--")), command


def test_the_sweep_is_valid() -> None:
    command = next(shlex.split(line) for line in PAGE.splitlines() if line.startswith("tombola sweep"))
    pairs = [*itertools.pairwise(command)]
    grid = parse_grid([value for option, value in pairs if option == "--grid"])
    names = grid_recipes(command[2], grid, [value for option, value in pairs if option == "--set"])
    assert len(names) == 4
    assert f"results/{command[2]}-sweep/{next(iter(names))}" in PAGE
