"""What is said of an option that a command does not have: which key of a recipe, or which option, may be meant."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence

from tombola.experiments.recipe_index import recipe_keys

_SECTIONS = ("", "training", "search", "data", "model", "rewind", "verdict", "controls", "stability")

_ELSEWHERE = {
    "learning_rate": "training.lr",
    "epochs": "training.length",
    "iterations": "training.length",
    "dataset": "data.name",
    "model": "model.name",
}
"""Names in other tools."""

EXAMPLE = "VALUE"


def unknown_option(option: str, options: Sequence[str], given: Sequence[str]) -> str:
    """One line for `option`, which is none of the `options` of a command that was `given` these words.

    >>> unknown_option("--batch-size", ["--set"], ["run", "digits", "--batch-size=64"])
    '--batch-size is a key of recipes, not an option: use --set training.batch_size=64'
    """
    written, value = _as_given(option, given)
    name = written.lstrip("-").replace("-", "_")
    keys = _by_name() if "--set" in options else {}
    if name in keys:
        return f"{written} is a key of recipes, not an option: use {_setting(keys[name], value)}"
    meant = {each: _setting(key, value) for each, key in keys.items()}
    meant |= {each.lstrip("-").replace("-", "_"): each for each in options if each.startswith("--")}
    near = difflib.get_close_matches(name, meant, n=1, cutoff=0.7)
    return f"no such option: {written}" + (f"; did you mean {meant[near[0]]}?" if near else "")


def _setting(key: str, value: str) -> str:
    return f"--set {shlex.quote(f'{key}={value}')}"


def _by_name() -> dict[str, str]:
    """The keys of recipes by their dotted names, by their last names, where the key of the first section of
    `_SECTIONS` is meant, and by their names in other tools."""

    def rank(key: str) -> int:
        section = key.rpartition(".")[0]
        return _SECTIONS.index(section) if section in _SECTIONS else len(_SECTIONS)

    keys = sorted(recipe_keys(), key=rank, reverse=True)
    return _ELSEWHERE | {key.rpartition(".")[2]: key for key in keys} | {key: key for key in keys}


def _as_given(option: str, given: Sequence[str]) -> tuple[str, str]:
    """The option as it was written, and its value: `-lr 0.1` is parsed as the short options -l and -r."""
    for word, following in zip(given, [*given[1:], ""], strict=True):
        written, equals, value = word.partition("=")
        if written == option or (option[:2] != "--" and written.startswith(option)):
            if equals:
                return written, value
            # A negative number is a value, another option is not.
            is_value = following and (not following.startswith("-") or following[1:2].isdigit())
            return written, following if is_value else EXAMPLE
    return option, EXAMPLE
