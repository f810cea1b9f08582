"""A recipe that runs in a second."""

from __future__ import annotations

from typing import Any

from tombola.experiments.recipe import Recipe, parse_recipe

TINY: dict[str, Any] = {
    "name": "tiny",
    "replicates": 2,
    "data": {"name": "digits", "validation": 200},
    "model": {"name": "mlp", "widths": [20, 10]},
    "training": {"optimizer": "adam", "lr": 5e-3, "batch_size": 40, "length": "60it", "evaluate_every": "10it"},
    "search": {"levels": 3, "rate": 0.4, "output_rate": 0.2},
    "controls": {"reinit": 2},
}


def tiny(**changes: Any) -> Recipe:
    """A recipe that runs in a second; `section__key=value` changes a value."""
    table = {name: dict(part) if isinstance(part, dict) else part for name, part in TINY.items()}
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if key:
            table.setdefault(section, {})[key] = value
        else:
            table[section] = value
    return parse_recipe(table, source="tiny")
