"""Growth: how the experiment of a results folder may be extended.

More replicates, levels, controls, draws, pairs of trainings, a transfer or pools leave every finished run as it is,
and so does another `[analysis]`. Any other change makes it a different experiment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tombola.experiments.file_names import CONFIGURATION
from tombola.experiments.recipe import Recipe, parse_config
from tombola.experiments.recipe_parsing import read_toml
from tombola.experiments.search_config import SearchConfig
from tombola.experiments.sections import AUTO, ControlSection
from tombola.studies.controls import CONTROLS
from tombola.utils.differences import differences
from tombola.utils.errors import InputError

Growth = Mapping[str, tuple[Any, Any]]
"""The keys that grow: for each dotted key of the configuration, the old value and the new one."""

ADDABLE = ("transfer", "pools", "stability", "baseline")
"""Sections that a configuration may gain: they add runs, and change no others."""


def growth_of_folder(folder: Path, config: SearchConfig) -> Growth:
    """How `config` extends the experiment in `folder`; empty if it is the same, or if there is no experiment.

    Raises `InputError` for other differences; see `growth`.
    """
    path = folder / CONFIGURATION
    return growth(folder, parse_config(read_toml(path), source=str(path)), config) if path.exists() else {}


def growth(folder: Path, there: SearchConfig, here: SearchConfig) -> Growth:
    """How `here` extends `there`, the configuration of `folder`; empty if they are the same.

    Raises `InputError`, which names all differences that do more than add runs.
    """
    before, after, rules = _comparable(there), _comparable(here), _rules(here)
    for section in ADDABLE:
        if section not in before:
            after.pop(section, None)
    refused = {
        key: (a, b)
        for key, (a, b) in differences([before, after]).items()
        if not any(fnmatchcase(key, pattern) and b is not None and adds(a, b) for pattern, adds in rules.items())
    }
    if refused:
        listed = [f"{key} is {_shown(a)} there and {_shown(b)} here" for key, (a, b) in sorted(refused.items())]
        raise InputError(
            f"{folder} belongs to another configuration: {'; '.join(listed)}. {_reason(refused, here)}"
            f"Name another folder with --out"
        )
    return {key: (a, b) for key, (a, b) in differences([there.resolved(), here.resolved()]).items()}


def growth_text(folder: Path, grown: Growth) -> str:
    """What is added to an experiment, in one line."""
    listed = [f"{key} from {_shown(a)} to {_shown(b)}" for key, (a, b) in grown.items()]
    return f"Extending {folder}: {', '.join(listed)}."


def _comparable(config: SearchConfig) -> dict[str, Any]:
    """The whole configuration, with every control, and with explicit lists of levels instead of "all"."""
    every = list(range(1, config.search.levels + 1))
    table = config.resolved() | {"controls": {}}
    table.pop("analysis", None)
    for name in CONTROLS:
        control = config.controls.get(name, ControlSection(draws=0))
        levels = every if control.levels is None else control.levels
        table["controls"][name] = {"draws": control.draws, "levels": levels if control.draws else []}
    if isinstance(config, Recipe) and config.baseline:
        table["baseline"] = [{"label": label} for label in config.baseline_labels[1:]]
    if config.transferred_to:
        table["transfer"]["levels"] = every if config.transferred_to.levels is None else config.transferred_to.levels
    return table


def _rules(here: SearchConfig) -> dict[str, Callable[[Any, Any], bool]]:
    """For each pattern of keys, a function that says whether changing one value to another only adds runs."""
    rules: dict[str, Callable[[Any, Any], bool]] = {
        "replicates": _more,
        "controls.*.draws": _more,
        "controls.*.levels": _all_of,
        "transfer.draws": _more,
        "transfer.levels": _all_of,
        "baseline": _continues,
        "stability.tickets": _more,
    }
    if here.search.density is None and not here.pooled:
        rules["search.levels"] = _more
    if here.rewind.to != AUTO:
        rules |= {"stability.candidates": _all_of, "stability.pairs": _more}
    return rules


def _more(before: int, after: int) -> bool:
    return after > before


def _all_of(before: list[Any], after: list[Any]) -> bool:
    return set(before) <= set(after)


def _continues(before: list[Any], after: list[Any]) -> bool:
    return after[: len(before)] == before


def _reason(refused: Growth, here: SearchConfig) -> str:
    """Why a change that looks like growth is refused; a sentence, or empty."""
    counts = {key: refused[key] for key in ("replicates", "search.levels") if key in refused}
    if any(b < a for a, b in counts.values()):
        kept = " ".join(f"--set {key}={a}" for key, (a, b) in counts.items() if b < a)
        return f"An experiment can be extended, not cut: {kept} keeps what is there. "
    if "search.levels" in refused and here.search.density is not None:
        return "With search.density every level depends on their number; with search.rate levels can be added. "
    if "search.levels" in refused and here.pooled:
        return "With [pools] every ticket is interpolated with those of other levels. "
    if here.rewind.to == AUTO and any(key.startswith("stability.") for key in refused):
        return f'With rewind.to = "{AUTO}" tickets depend on [stability]. '
    return ""


def _shown(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(item, dict) and "label" in item for item in value):
        return ", ".join(item["label"] for item in value)  # see `OtherTraining`
    return "not set" if value is None else repr(value)
