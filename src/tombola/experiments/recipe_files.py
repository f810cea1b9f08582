"""The recipes that come with tombola, as TOML files."""

from __future__ import annotations

import difflib
import itertools
from importlib import resources

from tombola.utils.errors import InputError


def recipes() -> dict[str, str]:
    """The recipes that come with tombola: name -> TOML text."""
    folder = resources.files("tombola.experiments.recipes")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return {file.name.removesuffix(".toml"): file.read_text(encoding="utf-8") for file in files}


def unknown_recipe(name: str) -> InputError:
    """An `InputError` for a name that no recipe has; it suggests the nearest one."""
    near = difflib.get_close_matches(name, recipes(), n=1, cutoff=0.5)
    hint = f': did you mean "{near[0]}"?' if near else ";"
    return InputError(f'unknown recipe "{name}"{hint} `tombola recipes` lists them; a file should end in .toml')


def opening_comment(text: str) -> str:
    """The comment that a recipe begins with, which describes it, on one line."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.lstrip("# ") for line in lines)
