"""What shells complete: recipes, their keys and values, results folders and so on. It does not need torch."""

from __future__ import annotations

import os
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from tombola.experiments.file_names import CONFIGURATION
from tombola.experiments.recipe_files import recipes
from tombola.experiments.recipe_index import recipe_keys, recipe_sizes

ENGINES = ("auto", "eager", "sparse", "stacked")
DEVICES = ("auto", "cpu", "cuda", "cuda:0")
CLUSTERS = ("auto", "ray", "ray://")
LOGGERS = ("tensorboard", "wandb", "mlflow")

MOST = 4
"""How many values of a key are shown beside it; the description of a candidate is one short line."""

_BASH_KEY = "_TOMBOLA_COMPLETED_KEY"

Completions = list[tuple[str, str]]


def complete_recipe(incomplete: str) -> Completions:
    """Names of recipes, with what they are, then TOML files and folders."""
    described = complete_recipe_name(incomplete)
    files = [(path, "") for path in _paths(incomplete) if path.endswith((".toml", "/"))]
    return [*described, *files] if incomplete else described + [(path, "") for path, _ in files if path[-1] != "/"]


def complete_recipe_name(incomplete: str) -> Completions:  # noqa: ARG001 - Typer filters
    """Names of recipes, with what they are."""
    return [(name, size.title) for name, size in recipe_sizes().items()]


def complete_setting(ctx: typer.Context, incomplete: str) -> Completions:
    """`KEY=VALUE`: first the key; then its values, if these are a closed choice, or the recipe's value."""
    keys = recipe_keys()
    if key := os.environ.get(_BASH_KEY):
        return [(value, "") for value in _values(key, ctx)]
    key, equals, _ = incomplete.partition("=")
    matching = [key] if equals else [known for known in keys if known.startswith(incomplete)]
    if len(matching) > 1:
        return [(f"{known}=", " ".join(keys[known][:MOST])) for known in matching]
    # With a single candidate, the shell would complete it and add a space.
    return [
        (f"{known}={value}", "") for known in matching for value in ("", *_values(known, ctx)) if value or not equals
    ]


def complete_results(incomplete: str) -> list[str]:
    """Results folders, and folders that may have some."""
    found = [path.removesuffix("/") for path in _paths(incomplete) if _is_results(path)]
    if not incomplete:
        found += sorted(str(path.parent) for path in Path().glob(f"results/*/{CONFIGURATION}"))
    return found or [path for path in _paths(incomplete) if path.endswith("/")]


def _is_results(path: str) -> bool:
    return path.endswith("/") and (Path(path) / CONFIGURATION).exists()


def _paths(incomplete: str) -> Iterator[str]:
    """The files, and the folders with a slash, whose path begins with `incomplete`."""
    folder, name = os.path.split(incomplete)
    try:
        entries = sorted(os.scandir(folder or "."), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(name) and (name or not entry.name.startswith(".")):
            yield os.path.join(folder, entry.name) + ("/" if entry.is_dir() else "")  # noqa: PTH118 - as typed


def _values(key: str, ctx: typer.Context) -> list[str]:
    """The values of a closed choice; otherwise the value in the recipe that the command names, if it has one."""
    if choices := recipe_keys().get(key):
        return choices
    # The last option still lacks its value, and what was not parsed for this reason is in `args`.
    recipe = str(ctx.params.get("recipe") or next(iter(ctx.args), ""))
    try:
        text = recipes().get(recipe) or Path(recipe).read_text(encoding="utf-8")
        value: Any = tomllib.loads(text)
        for part in key.split("."):
            value = value[part]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    return [] if isinstance(value, dict | list) else [str(value)]


def split_at_equals() -> None:
    """Prepare for bash, which splits words at "=": of `--set training.optimizer=ad` it completes the last of three
    words, `ad`, and expects candidates for this word alone. The key is kept for `complete_setting`."""
    if os.environ.get("_TOMBOLA_COMPLETE") != "complete_bash":
        return
    try:
        words, position = shlex.split(os.environ["COMP_WORDS"]), int(os.environ["COMP_CWORD"])
    except (KeyError, ValueError):  # an open quote
        return
    before, last = words[:position], words[position : position + 1]
    if last == ["="]:  # nothing follows it yet
        before, last = [*before, "="], []
    if len(before) >= 3 and before[-1] == "=" and before[-3] in ("--set", "--grid"):
        os.environ[_BASH_KEY] = before[-2]
        before = before[:-2]
        os.environ |= {"COMP_WORDS": shlex.join([*before, *last]), "COMP_CWORD": str(len(before))}
