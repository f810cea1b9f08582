"""The recipes that come with tombola, as TOML files."""

from __future__ import annotations

import itertools
from importlib import resources


def recipes() -> dict[str, str]:
    """The recipes that come with tombola: name -> TOML text."""
    folder = resources.files("tombola.experiments.recipes")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return {file.name.removesuffix(".toml"): file.read_text(encoding="utf-8") for file in files}


def opening_comment(text: str) -> str:
    """The comment that a recipe begins with, which describes it, on one line."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.lstrip("# ") for line in lines)
