"""What an experiment is called: by its folder, and by what it changes of the recipe of its name."""

from __future__ import annotations

import functools
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tombola.experiments.recipe import Recipe, parse_recipe
from tombola.experiments.recipe_files import recipes
from tombola.experiments.search_config import SearchConfig
from tombola.utils.differences import differences

MAX_OVERRIDES = 4
"""The largest number of changed values in a title; of more, the rest are counted."""


def experiment_title(config: SearchConfig, folder: Path | None = None) -> str:
    """The label of the experiment and how it is configured: `signs – digits with replicates=3`, or only the second if
    the folder has the name of the recipe."""
    label, configured = experiment_label(config, folder), configured_as(config)
    return configured if label == config.name else f"{label} – {configured}"


def experiment_label(config: SearchConfig, folder: Path | None = None) -> str:
    """The name of the results folder; without one, that of the configuration."""
    return (folder.resolve().name if folder else "") or config.name


def configured_as(config: SearchConfig) -> str:
    """The name of the configuration and, if a recipe of this name comes with tombola, the values that differ from it:
    `digits with replicates=3, no controls.reinit`."""
    changed = overrides(config)
    more = f" and {len(changed) - MAX_OVERRIDES} more" if len(changed) > MAX_OVERRIDES else ""
    return f"{config.name} with {', '.join(changed[:MAX_OVERRIDES])}{more}" if changed else config.name


def overrides(config: SearchConfig) -> list[str]:
    """The values that differ from those of the recipe of this name that comes with tombola, as `--set` takes them.

    They are computed, because a command does not say what a recipe in a file of one's own changes, and folders of
    older versions, of sweeps and of Python calls have no command.
    """
    packaged = _packaged(config.name) if isinstance(config, Recipe) else None
    if packaged is None:
        return []
    here, plain = config.resolved(), config.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    set_here = differences([{}, plain])
    found = {}
    changed = differences([packaged, here])
    present = [key for key, (_, value) in changed.items() if value is not None]
    for key, (before, value) in changed.items():
        section = key.partition(".")[0]
        if section not in here:
            found[section] = f"no {section}"
        elif value is None:
            if not any(_is_below(other, key) or _is_below(key, other) for other in present):
                found[key] = f"no {key}"
        elif before is not None or key in set_here:  # a new section has defaults, which say nothing
            found[key] = f"{key}={_shown(value)}"
    return [*found.values()]


def _is_below(key: str, table: str) -> bool:
    """Whether `key` is in this table, which has one value, such as a number, in the other recipe."""
    return key.startswith(f"{table}.")


@functools.cache
def _packaged(name: str) -> Mapping[str, Any] | None:
    """The resolved values of the recipe of this name that comes with tombola; None if there is none."""
    text = recipes().get(name)
    return None if text is None else parse_recipe(tomllib.loads(text), source=name).resolved()


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
